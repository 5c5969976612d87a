// Which process of how many this is, and who started it. Launchers are recognised by their
// environment, in this order, and the first that speaks wins: `tern run --ranks N` (it starts the
// processes itself and tells each by the variables of torchrun), torchrun (or anything that sets
// RANK and WORLD_SIZE), a SLURM step, mpirun, none (one process); mpirun called within a step of
// one task a machine speaks for it. Reads no network and starts nothing.
#pragma once

#include <functional>
#include <string>

namespace tern::parallel {

// Set by `tern run --ranks N` for the processes it starts; never by a user.
inline constexpr const char* kRanksVariable = "TERN_STARTED_RANKS";

struct Topology {
  int rank = 0, world = 1;              // Of all processes
  int local_rank = 0, local_world = 1;  // Of those on this machine
  std::string launcher = "none";        // "--ranks", "torchrun", "SLURM", "mpirun", "none"
  std::string reason;                   // The variables that decided
  std::string store_host;               // Where the processes meet
  int store_port = 0;
  // Another process than rank 0 (the launcher) serves the store.
  bool store_is_launchers = false;
  std::string run_id = "0";  // Of the job and the restart: a prefix in the store

  bool alone() const { return world == 1; }
};

// Value of a variable, or nullptr.
using Environment = std::function<const char*(const char* name)>;

// Throws UsageError when the variables of the launcher that was recognised are incomplete or
// contradict each other: it names the variable, the value found and what to set.
Topology ResolveTopology(const Environment& environment);
Topology ResolveTopology();  // From this process's environment

// First host of a SLURM node list: "n[03-05,9],m1" gives "n03".
std::string FirstHost(const std::string& node_list);

// "torchrun (RANK, WORLD_SIZE): rank 1 of 4, 2 ranks on this machine, store node1:29500".
std::string Describe(const Topology& topology);

}  // namespace tern::parallel
