// a_MK b_KN in fp32 by the quickest product that libtorch has (nn/precision.h), which wants rows
// one after the other: views are copied. No gradients.
#pragma once

#include "nn/precision.h"

namespace tern::ptq {

inline at::Tensor Product(const at::Tensor& a_MK, const at::Tensor& b_KN) {
  return nn::MatMul(a_MK.contiguous(), b_KN, nn::ComputeType::kFp32);
}

}  // namespace tern::ptq
