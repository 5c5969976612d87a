// INT4 activations, a scale a token (BitNet a4.8, arXiv 2411.04965, section 2.1; BitNet v2, arXiv
// 2504.18415): codes of a row x are clamp(round(x / s), -8, 7), half to even, with
//   absmean  s = max(mean|x|, 1e-5) / sqrt(7): the published one, clips what is beyond 3 means
//   absmax   s = max(max|x|, 1e-5) / 7: clips nothing
// The mean is summed in fp64 from left to right and rounded to fp32. They are Int8Rows, so the
// integer product takes them: gamma = 127 s, and gamma / 127 is within one rounding of s.
#pragma once

#include "quant/ternary.h"

namespace tern::quant {

// Of codes, and the least mean or maximum, as of BitLinear's int8.
inline constexpr float kInt4Top = 7, kInt4Least = -8, kSqrtInt4Top = 2.6457513f,
                       kInt4ScaleFloor = 1e-5f;

enum class Int4Scale { kAbsmean, kAbsmax };

// x_MK: fp32 [M, K], contiguous, on any device (device_neutral_formats.h).
Int8Rows QuantizeRowsInt4(const at::Tensor& x_MK, Int4Scale scale);

}  // namespace tern::quant
