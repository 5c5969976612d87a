// Weights to codes and scales and back, in any WeightFormat. The one quantizer of the project:
// fake quantization, GPTQ and the writers of files call it, so a file dequantizes to the very
// values that were trained with or measured. fp32, contiguous; fake quantizers with the scales of
// kMinMax run on any device, the rest on the CPU (device_neutral_formats.h). The results depend
// neither on the number of threads nor on the device.
//   scale  = RoundScale(range of the block / range of the codes)
//   code   = RoundToGrid(w / s + zero), s = scale, or scale / global in fp32
//   value  = (code - zero) * s, each operation rounded to fp32
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "quant/noise.h"
#include "quant/weight_format.h"

namespace tern::quant {

// R x C blocks of a matrix: ceil(N / block_n) x ceil(K / block_k).
struct BlockScales {
  at::Tensor scale_RC;  // fp32, values of the format's scale type
  at::Tensor zero_RC;   // fp32, integers of the codes' range; undefined when symmetric
  float global = 1;     // What the stored scales are divided by (NVFP4)
};

struct QuantizedWeight {
  WeightFormat format;
  // Integers: int8, -2^(bits-1) .. 2^(bits-1) - 1. Small floats: uint8, their bits (FloatBits).
  at::Tensor codes_NK;
  BlockScales scales;
};

// How the range of a block is found.
struct RangeSearch {
  enum class Method {
    // Symmetric integers: amax / ((2^bits - 1) / 2), as compressed-tensors; floats: amax / largest.
    // With zero points: (max - min) / (2^bits - 1), 0 always within.
    kMinMax,
    kMse,  // Of `steps` ranges from the whole down to `least` of it, the least squared error
  };
  Method method = Method::kMinMax;
  int steps = 80;
  float least = 0.2f;
  // kMse, symmetric integers: also tries scales below 0, which use the code -2^(bits-1) for the
  // side with the largest weight (llama.cpp's Q4_0; "full-range symmetric").
  bool signed_scale = false;
  // Of formats with HasTensorScale: the largest |w| of all matrices that share it, for engines make
  // one matrix of several; absent: the matrix's own. kMse leaves a scale that is shared as it is.
  std::optional<float> amax;
};

// Largest |w|; 0 of an empty matrix. Throws NumericError when w holds NaN or Inf.
float MaxAbs(const at::Tensor& w_NK);
// G = 448 * 6 / amax; 1 where that is no number.
float GlobalScaleOf(float amax);

// importance_K: fp32 [K], weight of each column in the squared error of kMse, or undefined. Throws
// NumericError when w holds NaN or Inf or a scale does not fit its type, InputError when groups do
// not divide K.
BlockScales FindScales(const at::Tensor& w_NK, const WeightFormat& format,
                       const RangeSearch& range = {}, const at::Tensor& importance_K = {});

// The scale of one group, for callers that change weights on the way (GPTQ). importance: of the
// `count` weights, or null. Throws as FindScales.
struct SegmentScale {
  float scale = 1, zero = 0;
};
SegmentScale FindSegmentScale(const float* w, int64_t count, const WeightFormat& format,
                              const RangeSearch& range, const float* importance, float global);

// REQUIRES: scales are those of a matrix of this shape and format; w is finite.
QuantizedWeight QuantizeWith(const at::Tensor& w_NK, const WeightFormat& format,
                             const BlockScales& scales);

// Both steps. Throws as FindScales.
QuantizedWeight Quantize(const at::Tensor& w_NK, const WeightFormat& format,
                         const RangeSearch& range = {}, const at::Tensor& importance_K = {});

// fp32 [N, K]: exactly what the exported file dequantizes to.
at::Tensor Dequantize(const QuantizedWeight& w);

// Dequantize(Quantize(w)) without the codes. inside_NK, when given: bool [N, K], false where the
// weight was clipped to the end of its range (straight-through gradients stop there).
at::Tensor FakeQuantize(const at::Tensor& w_NK, const WeightFormat& format,
                        const RangeSearch& range = {}, at::Tensor* inside_NK = nullptr);
// The same with given scales.
at::Tensor FakeQuantizeWith(const at::Tensor& w_NK, const WeightFormat& format,
                            const BlockScales& scales, at::Tensor* inside_NK = nullptr);

// FakeQuantize, but a weight between two levels becomes one of them at random so that the
// expectation is the weight, clipped to the levels' range (to 2^-24 of their distance). The scales
// are those of FakeQuantize.
at::Tensor FakeQuantizeStochastic(const at::Tensor& w_NK, const WeightFormat& format,
                                  const Noise& noise, const RangeSearch& range = {},
                                  at::Tensor* inside_NK = nullptr);

// RoundScale of each of them, in a new tensor. fp32, contiguous; throws as RoundScale.
at::Tensor RoundScales(ScaleDtype dtype, const at::Tensor& scale_RC);

// What a scale multiplies with: scale / global in fp32. [R, C]
at::Tensor EffectiveScales(const BlockScales& scales);

}  // namespace tern::quant
