// Runs the kernels' loops on libtorch's thread pool, so that the trainer's process has one pool and
// not two.
#pragma once

#include "base/parallel.h"

namespace tern::quant {

const ParallelFor& TorchParallel();

}  // namespace tern::quant
