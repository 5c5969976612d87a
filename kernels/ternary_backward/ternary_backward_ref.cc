// Scalar oracles of the backward pass: one element after the other, sums in fp64.
#include "kernels/common/half.h"
#include "kernels/ternary_backward/ternary_backward.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::kernels {
namespace {

int TernaryAt(const uint8_t* row, int64_t k) {
  const int64_t block = k / kT2BlockWeights, place = k % kT2BlockWeights;
  const int byte = row[block * kT2BlockBytes + place % kT2BlockBytes];
  return (byte >> (2 * (place / kT2BlockBytes)) & 3) - 1;
}

}  // namespace

void RoundGradientRef(const RoundGradientArgs& args) {
  const int64_t columns = GradientColumns(args.n);
  for (int64_t m = 0; m < args.m; ++m) {
    const float scale = args.scaled != nullptr ? args.gamma[m] / 127.0f : 0.0f;
    for (int64_t n = 0; n < columns; ++n) {
      const float value = n < args.n ? args.dy[m * args.lddy + n] : 0.0f;
      if (args.plain != nullptr) args.plain[m * args.ldo + n] = BfloatFromFloat(value);
      if (args.scaled != nullptr) args.scaled[m * args.ldo + n] = BfloatFromFloat(value * scale);
    }
  }
}

void TernaryInputGradientRef(const TernaryInputGradientArgs& args) {
  const int64_t row_bytes = T2RowBytes(args.k);
  for (int64_t m = 0; m < args.m; ++m) {
    for (int64_t k = 0; k < args.k; ++k) {
      double sum = 0.0;
      for (int64_t n = 0; n < args.n; ++n) {
        sum += double{FloatFromBfloat(args.dy[m * args.lddy + n])} *
               TernaryAt(args.w_t2 + n * row_bytes, k);
      }
      const float value = static_cast<float>(sum) * args.beta;
      float& out = args.dx[m * args.lddx + k];
      out = args.add ? out + value : value;
    }
  }
}

void TernaryWeightGradientRef(const TernaryWeightGradientArgs& args) {
  for (int64_t n = 0; n < args.n; ++n) {
    for (int64_t k = 0; k < args.k; ++k) {
      double sum = 0.0;
      for (int64_t m = 0; m < args.m; ++m) {
        sum += double{FloatFromBfloat(args.dy[m * args.lddy + n])} * args.x[m * args.ldx + k];
      }
      args.dw[n * args.lddw + k] = static_cast<float>(sum);
    }
  }
}

}  // namespace tern::kernels
