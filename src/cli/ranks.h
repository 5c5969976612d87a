// What the verbs that several ranks can share have in common: --ranks, the launchers of others, and
// how a rank that fails tells why.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "parallel/group.h"
#include "recipe/recipe.h"

namespace tern::cli {

// With --ranks N (ranks > 0) in a process that no launcher started: starts N processes of this
// program with `arguments`, waits for them, and throws the Error of their exit code unless it is 0.
// Returns true when it did so: the caller has nothing left to do. Throws UsageError for --ranks
// below another launcher.
bool StartRanks(int64_t ranks, const std::vector<std::string>& arguments);

struct RankedJob {
  recipe::ParallelConfig parallel;
  int64_t threads = 0;  // A rank's; 0: the machine's processors divided among its ranks
  std::map<std::string, std::string> must_agree;
  std::string device = "cpu";  // What the job asks for: "cpu", "cuda", "auto" (parallel/gpu.h)
};

// Runs `job` in this process: alone (null), or as the rank that the launcher's environment says, on
// the device that it asks for.
// What the job throws is told to the other ranks, and to torchrun by its error file.
void RunAsRank(const RankedJob& ranked,
               const std::function<void(parallel::Group*, const c10::Device&)>& job);

}  // namespace tern::cli
