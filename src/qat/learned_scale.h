// Weight quantizers whose scales are learned, one a row or a group of a row's weights: LSQ (arXiv
// 1902.08153) for 3 to 8 bits, SEQ (stretched elastic quantization) for 2 bits and ternary, sign
// for 1 bit, as ParetoQ has them (arXiv 2502.02631 and its code: initial values, gradient scale;
// rows alone). With a the scale, u = w/a:
//   LSQ          a * clip(round(u), -2^(b-1), 2^(b-1) - 1)      starts at max|w| / (2^(b-1) - 1)
//   SEQ 2 bits   a * (round(clip(u) * 2 - 0.5) + 0.5) / 2       starts at max|w|
//   SEQ ternary  a * round(clip(u) * 1.5) / 1.5                 starts at max|w|
//   sign         a * sign(w)                                    starts at mean|w|
// Scales count as rounded to bf16, the type in which integer formats store them, but for SEQ
// ternary, whose thirds no such format has; the gradient goes straight through that. clip of SEQ:
// to +-0.99. Gradients: w gets it where u is not clipped; a gets (q - u) where it is not clipped,
// the level it is clipped to where it is, times g = 1 / sqrt(numel(w) * Qp), Qp = 2^(b-1) - 1 (1
// for 1 and 2 bits); numel is that of the whole matrix though the scale is a row's or a group's.
#pragma once

#include <ATen/core/Tensor.h>

namespace tern::qat {

enum class LearnedKind { kLsq, kSeq2, kSeqTernary, kSign };

struct LearnedQuantizer {
  LearnedKind kind = LearnedKind::kLsq;
  int bits = 4;  // Of kLsq, 2 to 8
};

// A scale below this counts as this (ParetoQ).
inline constexpr double kLeastScale = 1e-5;

// [N, G] for w_NK; group g of a row is its columns [g, g + 1) * K / G. REQUIRES: groups divides K.
at::Tensor InitialScale(const LearnedQuantizer& quantizer, const at::Tensor& w_NK, int64_t groups);

// What the forward pass divides by and multiplies with: not below kLeastScale, rounded to bf16 (not
// of SEQ ternary). No gradients.
at::Tensor UsedScale(const LearnedQuantizer& quantizer, const at::Tensor& scale_NG);

// Quantized values [N, K] with gradients to both; scale_NG: [N, G]. Round half to even.
at::Tensor QuantizeLearned(const LearnedQuantizer& quantizer, const at::Tensor& w_NK,
                           const at::Tensor& scale_NG);

}  // namespace tern::qat
