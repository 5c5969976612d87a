// HQQ, half-quadratic quantization (Badri & Shaji, "Half-Quadratic Quantization of Large Machine
// Learning Models", mobiusml.github.io/hqq_blog, 2023): scales and zero points from the weights
// alone, for the least sum of |W - W_r|^p, p < 1, which forgives a few large errors. With W_q the
// codes, W_r = (W_q - zero) s, the problem splits in two, solved in turns while beta grows:
//   W_e = shrink(W - W_r),  shrink(x) = sign(x) max(|x| - |x|^(p - 1) / beta, 0)
//   zero, s = least squares of W - W_e by (W_q - zero) s
// As published zero points are floats, which take up all of the mean error, and scales stay. The
// zero points of our formats are codes: they are rounded, and a rounded one seldom moves by itself,
// so the scale is fitted with it, and alone where a format has no zero points. Stored values decide
// (scales of the format's type), against rounding to nearest: no group becomes worse.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "quant/weight_quantizer.h"

namespace tern::ptq {

struct HqqOptions {  // Defaults of the authors' program (hqq 0.2, core/optimize.py)
  double lp_norm = 0.7, beta = 10, kappa = 1.01;
  int iterations = 20;
};

struct HqqResult {
  quant::QuantizedWeight weight;
  int64_t groups = 0, improved = 0;  // The others are as they were rounded to nearest
};

// w_NK: fp32. `rounded`: w rounded to nearest with scales of `range`; where that searches, the
// whole range is a second point to begin from. importance_K: fp32 [K], weight of each column in
// squared errors, or undefined. A group stops when its mean |W - W_r| falls no more. The result
// does not depend on the number of threads. REQUIRES: integer codes, scales along rows. Throws
// NumericError when w holds NaN or Inf.
HqqResult Hqq(const at::Tensor& w_NK, const quant::QuantizedWeight& rounded,
              const quant::RangeSearch& range, const at::Tensor& importance_K,
              const HqqOptions& options = {});

}  // namespace tern::ptq
