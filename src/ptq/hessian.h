// The second moments of a layer's inputs, which GPTQ, AWQ and the ledger's errors go by.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "ptq/product.h"

namespace tern::ptq {

// Sum of x x^T over the inputs of a step, as a mean of 2 x x^T. It is symmetric: only blocks at and
// above the diagonal are summed.
class Hessian {
 public:
  // x_MK: fp32 inputs of any number of tokens, at least one in all.
  void Add(const at::Tensor& x_MK) {
    const int64_t k = x_MK.size(1);
    if (!sum_KK_.defined()) sum_KK_ = at::zeros({k, k}, at::kFloat);
    const at::Tensor x_KM = x_MK.t().contiguous();
    const int64_t blocks = std::max<int64_t>(1, k / kBlock), rows = (k + blocks - 1) / blocks;
    for (int64_t begin = 0; begin < k; begin += rows) {
      const int64_t end = std::min(begin + rows, k);
      sum_KK_.slice(0, begin, end)
          .slice(1, begin)
          .add_(Product(x_KM.slice(0, begin, end), x_MK.slice(1, begin)));
    }
    tokens_ += x_MK.size(0);
  }
  at::Tensor Mean() const {
    const at::Tensor upper_KK = sum_KK_.triu();
    return upper_KK.add(upper_KK.triu(1).t()).mul_(2.0 / static_cast<double>(tokens_));
  }
  int64_t tokens() const { return tokens_; }

 private:
  static constexpr int64_t kBlock = 256;

  at::Tensor sum_KK_;
  int64_t tokens_ = 0;
};

}  // namespace tern::ptq
