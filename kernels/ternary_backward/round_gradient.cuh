// Gradients of outputs to BF16 for both products of the backward pass, which read them many times:
// one reading of dY, one rounding for dX, and for dW one more after the token's gamma / 127. A
// thread takes four neighbours of a row: 16 bytes in, 8 bytes of each result. Bit-equal to the
// oracle: one division, one product, one rounding, none fused.
#pragma once

#include "kernels/common/row.cuh"
#include "kernels/simt/intrin_half.h"
#include "kernels/ternary_backward/ternary_backward.h"

namespace tern::kernels {

inline constexpr int kRoundThreads = 256;

// out[0..3] = bf16(scale * v).
TERN_DEVICE void StoreRounded(uint16_t* out, const Floats4& v, float scale) {
  simt::StoreGlobal64(out, {{simt::PackBf16(v.value[0] * scale, v.value[1] * scale),
                             simt::PackBf16(v.value[2] * scale, v.value[3] * scale)}});
}

// Grid: blocks of kRoundThreads for m * fours threads, fours = GradientColumns(n) / 4.
__global__ void __launch_bounds__(kRoundThreads)
    RoundGradientKernel(const RoundGradientArgs args, unsigned fours) {
  const unsigned at = blockIdx.x * kRoundThreads + threadIdx.x, row = at / fours;
  if (row >= args.m) return;
  const int64_t column = 4 * static_cast<int64_t>(at % fours), to = row * args.ldo + column;
  const auto left =
      static_cast<int>(args.n - column < 4 ? args.n - column : 4);  // May be negative.
  const Floats4 v = LoadFour(args.dy + row * args.lddy + column, left);
  if (args.plain != nullptr) StoreRounded(args.plain + to, v, 1.0f);
  if (args.scaled != nullptr) StoreRounded(args.scaled + to, v, args.gamma[row] / 127.0f);
}

}  // namespace tern::kernels
