// BitLinear (W1.58A8, arXiv 2402.17764) as one autograd function over all matrices that read the
// same input: the input is quantized once for q, k and v, or for gate and up. Forward: integers,
// exactly (src/quant/ternary.h). Backward: straight-through, dX = sum_i dY_i (beta_i Wq_i), dW_i =
// dY_i^T (gamma/127 xq). Saved for it: int8 xq with its row scales and the 2-bit codes, no float
// copies. No bias.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>
#include <vector>

#include "nn/input_transform.h"
#include "nn/precision.h"
#include "nn/tensor_group.h"
#include "nn/weight_source.h"
#include "quant/ternary.h"

namespace tern::nn {

// Sees what each BitLinear quantized; used for health metrics. Called on the forward's thread.
class BitLinearObserver {
 public:
  virtual ~BitLinearObserver() = default;
  virtual void OnActivations(std::string_view group, const quant::Int8Rows& x) = 0;
};

struct BitLinearOptions {
  ComputeType compute = ComputeType::kFp32;  // Of the products in the backward pass
  BitLinearObserver* observer = nullptr;
  std::string_view group;  // Name told to the observer, e.g. "qkv"
  // Share of quantization: below 1, inputs and weights are x + share (q(x) - x), and the product is
  // one of floats: how a dense model is led over to ternary layers.
  double share = 1;
  // Not null: other ranks hold parts of the matrices. It must live until the backward pass is over,
  // and takes the gradients instead of the latents' .grad where it wants them.
  WeightSource* source = nullptr;
  // Of all the matrices: codes other than int8, inputs rotated first.
  InputTransform inputs = {};
  // Not null: each matrix is this rank's columns, [N_i, K/T], of one that the group shares, with
  // `source` for its codes. x is the whole rows, [M, K], or this rank's columns of them, [M, K/T];
  // quantized as the whole rows either way. The integers of all ranks are added, exactly, and then
  // scaled: y has the bits of one rank.
  TensorGroup* columns = nullptr;
};

// x_MK: fp32 [M, K]; each w_NK: fp32 latents [N_i, K]. Returns y_i [M, N_i].
// Throws NumericError when a matrix holds NaN or Inf.
std::vector<at::Tensor> BitLinear(const at::Tensor& x_MK, const std::vector<at::Tensor>& w_NK,
                                  const BitLinearOptions& options);

}  // namespace tern::nn
