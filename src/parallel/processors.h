// Which processors of its machine each rank may use: launchers bind ranks to some of them (mpirun
// by default, srun with task/affinity or cgroups), and a rank's threads are to be as many as it has
// for itself. What ranks may use is compared among them, since a launcher's variables do not say
// it. Linux; machines are told apart by their host names.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tern::parallel {

// Of this process: "host 0,1,5".
std::string ProcessorPlace();

struct ProcessorShare {
  int64_t usable = 1;   // Processors that this rank may use
  int64_t sharing = 1;  // Ranks that may use one of them, this one included
  int64_t by_all = 1;   // Processors of the machine that any of its ranks may use
  bool bound = false;   // Ranks of the machine may use different ones: their launcher's choice

  int64_t threads() const { return sharing > usable ? 1 : usable / sharing; }
};

// places[i]: what ProcessorPlace says on rank i.
ProcessorShare ShareProcessors(const std::vector<std::string>& places, int rank);

}  // namespace tern::parallel
