// See tensor_codes.h.
#include "train/tensor_codes.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <utility>

#include "base/error.h"
#include "kernels/ternary_pack/t2.h"
#include "quant/ternary_rows.h"
#include "train/whole_scales.h"

namespace tern::train {

void TensorExchange::Sum(const at::Tensor& x) { group_.AllReduceSum(x, "tensor sums").Wait(); }

at::Tensor TensorExchange::Gather(const at::Tensor& mine_MK) {
  const int64_t m = mine_MK.size(0), k = mine_MK.size(1);
  const at::Tensor all_TMK = at::empty({size(), m, k}, mine_MK.options());
  group_.AllGather(mine_MK.contiguous(), all_TMK, "tensor columns").Wait();
  return all_TMK.permute({1, 0, 2}).reshape({m, size() * k});
}

TensorCodes::TensorCodes(parallel::Group& group, std::vector<Matrix> matrices)
    : group_(group), matrices_(std::move(matrices)), codes_(matrices_.size()) {
  for (size_t i = 0; i < matrices_.size(); ++i)
    index_[matrices_[i].slice_NK.unsafeGetTensorImpl()] = i;
}

void TensorCodes::Refresh() {
  if (fresh_) return;
  const at::NoGradGuard no_grad;
  std::vector<ScaleRows> whole;
  for (const Matrix& m : matrices_) {
    ScaleRows rows{{}, parallel::SplitRows(m.n, quant::RowUnit(m.k), group_.size()), m.k};
    rows.sums = quant::BlockSums(
        parallel::AreRows(m.slices, rows.split)
            ? m.slice_NK
            : parallel::ExchangeRows(group_, m.slice_NK, m.slices, rows.split, "latents"));
    whole.push_back(std::move(rows));
  }
  const std::vector<float> betas = JoinScales(group_, whole);
  for (size_t i = 0; i < matrices_.size(); ++i) {
    const at::Tensor& slice_NK = matrices_[i].slice_NK;
    quant::TernaryWeight& code = codes_[i];
    code.beta = betas[i];
    code.k = slice_NK.size(1);
    // A tensor of its own for each step: the last one's may still be saved for a backward pass.
    code.t2_NC = at::empty({slice_NK.size(0), kernels::T2RowBytes(code.k)},
                           slice_NK.options().dtype(at::kByte));
    quant::QuantizeRowsTo(slice_NK, code.beta, code.t2_NC);
  }
  fresh_ = true;
}

const quant::TernaryWeight& TensorCodes::Ternary(const at::Tensor& w_NK) {
  const auto found = index_.find(w_NK.unsafeGetTensorImpl());
  TERN_CHECK(found != index_.end() && fresh_, "a matrix ", w_NK.sizes(),
             fresh_ ? " that is not cut" : ": forward before Refresh");
  return codes_[found->second];
}

}  // namespace tern::train
