// The backward pass of BitLinear's product y = (gamma/127 xq) (beta Wq)^T in BF16, from the 2-bit
// weights and the int8 codes that the forward pass left: no matrix is expanded. Three steps, each
// with its oracle here; the CUDA kernels are in ternary_backward_cuda.h, and on CPUs libtorch's
// products of dequantized matrices do the work (README.md).
//
//   RoundGradient          dyb = bf16(dY),  dys = bf16(dY * (gamma/127)): fp32 products, to nearest
//   TernaryInputGradient   dX[m][k] = (sum_n dyb[m][n] Wq[n][k]) * beta, or added to what dX holds
//   TernaryWeightGradient  dW[n][k] = sum_m dys[m][n] xq[m][k]
//
// Codes are exact in BF16 (-1, 0, 1; |xq| <= 128), products exact in fp32, so what is rounded is
// the gradient, once, and the sums. gamma/127 goes into dY because xq would not be exact with it.
#pragma once

#include <cstdint>

namespace tern::kernels {

// Columns of rounded gradients, which are written in pieces of 16 bytes: n up to a multiple of 8.
constexpr int64_t GradientColumns(int64_t n) { return (n + 7) / 8 * 8; }

// Either result may be null; gamma is read for `scaled` alone. Columns n .. GradientColumns(n) are
// written as if dY were 0 there.
struct RoundGradientArgs {
  const float* dy = nullptr;     // [m, lddy]
  const float* gamma = nullptr;  // [m]
  uint16_t* plain = nullptr;     // [m, ldo] bits of bf16
  uint16_t* scaled = nullptr;    // [m, ldo] bits of bf16
  int64_t m = 0, n = 0, lddy = 0, ldo = 0;
};

struct TernaryInputGradientArgs {
  const uint16_t* dy = nullptr;   // [m, lddy], RoundGradient's `plain`
  const uint8_t* w_t2 = nullptr;  // [n, T2RowBytes(k)], see ternary_pack/t2.h
  float* dx = nullptr;            // [m, lddx]
  float beta = 0;
  bool add = false;  // dX + the product instead of the product
  int64_t m = 0, n = 0, k = 0, lddy = 0, lddx = 0;
};

struct TernaryWeightGradientArgs {
  const uint16_t* dy = nullptr;  // [m, lddy], RoundGradient's `scaled`
  const int8_t* x = nullptr;     // [m, ldx]; ldx >= T2PaddedK(k)
  float* dw = nullptr;           // [n, lddw]
  int64_t m = 0, n = 0, k = 0, lddy = 0, ldx = 0, lddw = 0;
};

// Scalar oracles. Sums in fp64 from the first element to the last, then rounded to fp32; the other
// operations in fp32. The kernels' fp32 sums differ from them by at most terms * 2^-23 of the sum
// of |products|; where all partial sums are integers below 2^24 the bits are equal.
void RoundGradientRef(const RoundGradientArgs& args);
void TernaryInputGradientRef(const TernaryInputGradientArgs& args);
void TernaryWeightGradientRef(const TernaryWeightGradientArgs& args);

}  // namespace tern::kernels
