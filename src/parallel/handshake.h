// The first words between the ranks: who is where, and whether all run the same job with the same
// program.
#pragma once

#include <map>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "parallel/launch.h"

namespace tern::parallel {

// Returns when all ranks are there and agree. Throws UsageError (two processes say they are one
// rank, or one local rank of a machine; an item of must_agree differs from rank 0's), ResourceError
// (a rank is not there within timeout_s: all that are missing are named).
void Handshake(c10d::Store& store, const Topology& topology,
               const std::map<std::string, std::string>& must_agree, double timeout_s);

}  // namespace tern::parallel
