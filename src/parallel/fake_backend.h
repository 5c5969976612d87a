// A c10d back end that is one rank of many without the others: a collective is done when it is
// called, and answers as if all ranks had what this one has. Sums are `size` times this rank's
// tensor, gathers `size` copies of it; an exchange brings from every rank what this rank sends to
// itself, cut or filled with zeros where another would send less or more. No network, no store, no
// other process: for counting what a training does (dry runs), not for its numbers. What it does
// not answer throws, as c10d's Backend does.
#pragma once

#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

namespace tern::parallel {

// For tensors of the CPU and of `device`.
c10::intrusive_ptr<c10d::ProcessGroup> MakeFakeGroup(int rank, int size,
                                                     const c10::Device& device = c10::kCPU);

}  // namespace tern::parallel
