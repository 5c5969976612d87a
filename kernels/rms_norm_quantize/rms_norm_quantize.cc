// The CPU version: both SIMD kernels in turn on a few rows at a time, whose normalised values stay
// in the cache of the core that works on them.
#include "kernels/rms_norm_quantize/rms_norm_quantize.h"

#include <algorithm>
#include <vector>

#include "kernels/absmax_quantize/absmax_quantize.h"
#include "kernels/rms_norm/rms_norm.h"

namespace tern::kernels {
namespace {

// Work below which waking a thread costs more than it saves.
constexpr int64_t kGrainElements = 32768;
// 16 KiB of normalised values: half of a small first-level cache.
constexpr int64_t kScratchElements = 4096;

}  // namespace

void RmsNormQuantize(const RmsNormQuantizeArgs& args, const ParallelFor& parallel) {
  const int64_t d = args.d, block = std::max<int64_t>(kScratchElements / d, 1);
  parallel(args.m, kGrainElements / d + 1, [&](int64_t begin, int64_t end) {
    std::vector<float> y(static_cast<size_t>(std::min(block, end - begin) * d));
    for (int64_t row = begin; row < end; row += block) {
      const int64_t rows = std::min(block, end - row);
      RmsNormForward(args.x + row * d, args.g, rows, d, args.eps, y.data(), args.inv_rms + row,
                     SerialFor);
      AbsmaxQuantize(y.data(), 0, rows, d, d, args.q + row * args.ldq, args.ldq, args.gamma + row,
                     args.sum + row);
    }
  });
}

}  // namespace tern::kernels
