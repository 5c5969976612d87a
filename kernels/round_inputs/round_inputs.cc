// See round_inputs.h.
#include "kernels/round_inputs/round_inputs.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/fp8/fp8.h"

namespace tern::kernels {
namespace {

// Half the number of steps between the least and the largest value of a code.
constexpr float kInt8Range = 127.5f, kE4m3Range = 448.0f;

}  // namespace

void RoundInputs(const RoundInputsArgs& args, const ParallelFor& parallel) {
  const float largest = args.fp8 ? kE4m3Range : kInt8Range;
  const int64_t k = args.k, group = args.group > 0 ? std::min(args.group, k) : k;
  parallel(args.m, /*grain=*/4, [&](int64_t row_begin, int64_t row_end) {
    std::vector<uint8_t> codes(static_cast<size_t>(group));
    for (int64_t at = row_begin * k; at < row_end * k;) {
      const int64_t count = std::min(group, k - at % k);
      const float *in = args.x + at, *end = in + count;
      float amax = 0;
      for (const float* p = in; p < end; ++p) amax = std::max(amax, std::fabs(*p));
      const float scale = args.scale > 0 ? args.scale : amax / largest;
      float* to = args.out + at;
      at += count;
      if (!(scale > 0)) {
        std::fill_n(to, count, 0.0f);
        continue;
      }
      for (int64_t i = 0; i < count; ++i) to[i] = in[i] / scale;
      if (args.fp8) {
        Fp32ToE4M3(to, count, codes.data(), SerialFor);
        E4M3ToFp32(codes.data(), count, to, SerialFor);
      }
      for (int64_t i = 0; i < count; ++i)
        to[i] = scale * (args.fp8 ? to[i] : std::clamp(std::nearbyint(to[i]), -128.0f, 127.0f));
    }
  });
}

}  // namespace tern::kernels
