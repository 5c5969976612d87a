// `tern run --ranks N`: starts N processes of this program on this machine and waits for them.
// Processes are made by fork and exec before this one has touched a device or made threads. This
// process also serves the store, so that the ranks meet without agreeing on a port. Every line a
// rank prints on stderr comes out with the rank before it; stdout is rank 0's alone. The first rank
// that fails decides the exit code, unless another one then gives a reason of its own; the others
// get SIGTERM, and SIGKILL after the grace time.
#pragma once

#include <string>
#include <vector>

namespace tern::parallel {

struct SpawnOptions {
  int ranks = 2;
  std::vector<std::string> command;  // argv of each rank; command[0] is the program's path
  double grace_s = 10;               // Between SIGTERM and SIGKILL once a rank has failed
  double end_s = 30;                 // For the others once a rank has ended well: all work is done
  double stop_s = 300;               // The same once one has stopped: another may still be saving
};

struct SpawnResult {
  int exit_code = 0;
  int failed_rank = -1;  // The first that failed; -1: none
};

// The exit code is 0 when all ranks ended with 0; 75 when a signal stopped them with
// everything saved; else that of the first rank that failed (a rank ended by a signal, or that does
// not end when others have, counts as 5). A rank that ended with 5 may have lost one that fails for
// another reason, and was only quicker: that one's exit code then counts.
// SIGINT, SIGTERM and SIGUSR1 are passed on to all ranks. Throws ResourceError when a rank cannot
// be started (those that were are ended).
SpawnResult RunRanks(const SpawnOptions& options);

// Called first by a process that RunRanks started: it gets SIGTERM when its launcher dies.
void DieWithLauncher();

}  // namespace tern::parallel
