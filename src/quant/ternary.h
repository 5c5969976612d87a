// BitNet b1.58 quantizers on tensors (arXiv 2402.17764): absmean ternary weights in T2, absmax int8
// activations a token, and the exact integer product of the two. Shapes: docs/shapes.md. The
// numbers and their order: ARCHITECTURE.md. The kernels of the deploy half do the work, so trainer
// and engine compute the same integers; not on the CPU, device_neutral.h does. fp32, contiguous;
// the callers' autograd (src/nn/bit_linear.h) decides what is saved.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "quant/noise.h"

namespace tern::quant {

struct TernaryWeight {
  at::Tensor t2_NC;   // uint8 [N, T2RowBytes(K)], layout in kernels/ternary_pack/t2.h
  float beta = 0;     // One scale a matrix: max(mean|W|, 1e-5)
  int64_t k = 0;      // K without padding
  int64_t zeros = 0;  // Codes that are 0
  int64_t flips = 0;  // Codes that differ from `previous_NC`; 0 without one
};

// w_NK: fp32 [N, K], contiguous. previous_NC: codes of an earlier call for counting flips, or
// undefined. Throws NumericError when the scale is not finite (w_NK holds NaN or Inf).
TernaryWeight QuantizeTernary(const at::Tensor& w_NK, const at::Tensor& previous_NC = {});

// beta * codes in fp32 [N, K] with QuantizeTernary's scale, and codes rounded up or down at random
// so that the expectation is w, clipped to +-beta. Throws as QuantizeTernary.
at::Tensor FakeTernaryStochastic(const at::Tensor& w_NK, const Noise& noise);

struct Int8Rows {
  at::Tensor q_MK;     // int8 [M, T2PaddedK(K)], zero padded
  at::Tensor gamma_M;  // fp32 [M]: max(amax|x|, 1e-5)
  at::Tensor sum_M;    // int32 [M]: sum of the codes of a row
  int64_t k = 0;
  int top = 127;  // The largest code; int4_rows.h has 7
};

// x_MK: fp32 [M, K], contiguous.
Int8Rows QuantizeRows(const at::Tensor& x_MK);

// y_MN = float(acc_MN) * (beta * (gamma_M / 127)), acc exact in int32.
at::Tensor TernaryMatMul(const Int8Rows& x, const TernaryWeight& w);

// ---- Products whose K is cut over ranks: TernaryMatMul's bits from parts.
// Columns [first, first + count) of quantized rows, with the sums of these codes.
Int8Rows ColumnsOf(const Int8Rows& x, int64_t first, int64_t count);
// As QuantizeRows of whole rows whose largest |x| is amax_M, fp32, of some of their columns [M,
// K'].
Int8Rows QuantizeColumns(const at::Tensor& x_MK, const at::Tensor& amax_M);
// acc_MN of these columns as fp32 integers; adding those of all columns is exact in any order when
// SumsAreExact(all columns): 127 K < 2^24.
at::Tensor TernarySums(const Int8Rows& x, const TernaryWeight& w);
bool SumsAreExact(int64_t k);
// TernaryMatMul's y_MN from the sums over all columns.
at::Tensor ScaleSums(const at::Tensor& acc_MN, const at::Tensor& gamma_M, float beta);

// fp32 values: scale * codes [N, K] (scale 1 gives the codes) and gamma/127 * q [M, K].
at::Tensor Dequantize(const TernaryWeight& w, float scale);
at::Tensor Dequantize(const Int8Rows& x);

}  // namespace tern::quant
