// Causal attention over heads through libtorch's scaled_dot_product_attention (on CPUs and GPUs its
// flash back end).
#pragma once

#include <ATen/core/Tensor.h>

#include "nn/precision.h"

namespace tern::nn {

// q_BTHE, k_BTJE, v_BTJE fp32, J divides H. document_mask_B1TT: bool, true where a query may see a
// key, already causal; undefined: plain causal. Operands are rounded to the compute type, on a GPU
// probabilities, too; softmax and sums are fp32. Returns [B, T, H * E].
at::Tensor CausalAttention(const at::Tensor& q_BTHE, const at::Tensor& k_BTJE,
                           const at::Tensor& v_BTJE, const at::Tensor& document_mask_B1TT,
                           ComputeType compute);

// The mask of packed documents: query and key belong to one document and the key is not later.
// document_ids_BT: int32.
at::Tensor DocumentMask(const at::Tensor& document_ids_BT);

}  // namespace tern::nn
