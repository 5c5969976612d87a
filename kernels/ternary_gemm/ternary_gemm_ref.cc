// Scalar oracle of the ternary product: one element after the other.
#include "kernels/ternary_gemm/ternary_gemm.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::kernels {

void TernaryGemmRef(const TernaryGemmArgs& args) {
  const int64_t row_bytes = T2RowBytes(args.k);
  for (int64_t m = 0; m < args.m; ++m) {
    const int8_t* x = args.x + m * args.ldx;
    for (int64_t n = 0; n < args.n; ++n) {
      const uint8_t* w = args.w_t2 + n * row_bytes;
      int32_t acc = 0;
      for (int64_t block = 0; block < row_bytes / kT2BlockBytes; ++block) {
        for (int64_t i = 0; i < kT2BlockWeights; ++i) {
          const int code =
              w[block * kT2BlockBytes + i % kT2BlockBytes] >> (2 * (i / kT2BlockBytes)) & 3;
          acc += code * x[block * kT2BlockWeights + i];
        }
      }
      args.y[m * args.ldy + n] = static_cast<float>(acc - args.x_sum[m]) * args.out_scale[m];
    }
  }
}

}  // namespace tern::kernels
