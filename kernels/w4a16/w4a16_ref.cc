// Scalar oracle of the 4-bit product: one element after the other, in the order that w4a16.h
// states.
#include <cmath>
#include <cstring>

#include "kernels/common/half.h"
#include "kernels/common/lanes.h"
#include "kernels/w4a16/w4a16_impl.h"

namespace tern::kernels {

void W4A16GemvRef(const W4A16Args& args) {
  static_assert(kW4Lanes == kLanes);
  for (int64_t m = 0; m < args.m; ++m) {
    const float* x = args.x + m * args.ldx;
    for (int64_t n = 0; n < args.n; ++n) {
      float total[kLanes] = {};
      for (int64_t group = 0; group < W4Groups(args.k); ++group) {
        const uint8_t* words = args.w + n * W4RowBytes(args.k) + group * kW4GroupBytes;
        const int zero = args.zeros_GN != nullptr ? args.zeros_GN[group * args.n + n] : 8;
        const uint16_t bits = args.scales_GN[group * args.n + n];
        const float scale =
            args.scale_type == Float16Type::kF16 ? FloatFromHalf(bits) : FloatFromBfloat(bits);
        for (int64_t lane = 0; lane < kLanes; ++lane) {
          uint32_t word;
          std::memcpy(&word, words + 4 * lane, sizeof(word));
          float part = 0.0f;
          for (int e = 0; e < kW4Steps; ++e) {
            const int64_t at = group * kW4Group + W4Place(lane, e);
            const int weight = static_cast<int>(word >> W4Shift(e) & 15u) - zero;
            part = std::fma(at < args.k ? x[at] : 0.0f, static_cast<float>(weight), part);
          }
          total[lane] = std::fma(scale, part, total[lane]);
        }
      }
      args.y[m * args.ldy + n] = JoinLanes(total);
    }
  }
}

}  // namespace tern::kernels
