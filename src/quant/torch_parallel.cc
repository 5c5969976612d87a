// See torch_parallel.h.
#include "quant/torch_parallel.h"

#include <ATen/Parallel.h>

namespace tern::quant {

const ParallelFor& TorchParallel() {
  static const ParallelFor parallel = [](int64_t n, int64_t grain, const RangeBody& body) {
    at::parallel_for(0, n, grain, [&](int64_t begin, int64_t end) { body(begin, end); });
  };
  return parallel;
}

}  // namespace tern::quant
