// What is done to the inputs of a linear layer before its product: rotation by a Hadamard transform
// (BitNet v2, arXiv 2504.18415) and quantization a token (int8 as BitLinear, int4 as BitNet a4.8,
// arXiv 2411.04965; int8 and FP8 as compressed-tensors' dynamic input_activations,
// kernels/round_inputs, in dense layers alone). Gradients: rotated back, straight through the
// quantizer, clipped or not.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/ternary.h"

namespace tern::nn {

enum class InputCodes { kNone, kInt8, kInt4Absmean, kInt4Absmax, kInt8Dynamic, kFp8Dynamic };

struct InputTransform {
  InputCodes codes = InputCodes::kNone;
  bool hadamard = false;
  bool operator==(const InputTransform&) const = default;
};

// Codes and scales of rows, fp32 [M, K], contiguous; kNone: int8. No gradients. REQUIRES: not
// kInt8Dynamic or kFp8Dynamic, which have no integer product here.
quant::Int8Rows EncodeInputs(const at::Tensor& x_MK, InputCodes codes);

// x_MK H (quant/hadamard.h) with its gradient, dy H.
at::Tensor Rotate(const at::Tensor& x_MK);

// The dequantized values of the rotated inputs, x + share (q(x) - x), with gradients.
at::Tensor TransformInputs(const at::Tensor& x_MK, const InputTransform& transform, double share);

}  // namespace tern::nn
