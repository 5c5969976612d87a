// Tensor parallelism in a training: the exchanges of its products over a group of ranks, and the
// 2-bit codes of the slices that each rank holds of the BitLinear matrices. The scale is that of
// the whole matrix with the bits of one process; for its blocks a rank needs whole rows, so once a
// step slices along columns (o, down) travel as rows, 4 bytes a weight, and blocks that a cut by
// rows goes through likewise.
#pragma once

#include <unordered_map>
#include <vector>

#include "nn/tensor_group.h"
#include "nn/weight_source.h"
#include "parallel/group.h"
#include "parallel/matrix_slice.h"

namespace tern::train {

class TensorExchange : public nn::TensorGroup {
 public:
  explicit TensorExchange(parallel::Group& group) : group_(group) {}
  int64_t rank() const override { return group_.rank(); }
  int64_t size() const override { return group_.size(); }
  void Sum(const at::Tensor& x) override;
  at::Tensor Gather(const at::Tensor& mine_MK) override;

 private:
  parallel::Group& group_;
};

class TensorCodes : public nn::WeightSource {
 public:
  struct Matrix {
    at::Tensor slice_NK;                        // The parameter: this rank's slice
    std::vector<parallel::MatrixSlice> slices;  // Of all ranks
    int64_t n = 0, k = 0;                       // Of the whole
  };
  TensorCodes(parallel::Group& group, std::vector<Matrix> matrices);

  // Makes the codes of the slices as they are now; nothing when they have not changed since. A
  // collective. Throws NumericError, on all ranks, when a matrix holds NaN or Inf.
  void Refresh();
  // The slices have changed.
  void Invalidate() { fresh_ = false; }

  // Of the slice, with the whole matrix's scale.
  const quant::TernaryWeight& Ternary(const at::Tensor& w_NK) override;
  bool TakeGradient(const at::Tensor&, const at::Tensor&) override { return false; }

 private:
  parallel::Group& group_;
  std::vector<Matrix> matrices_;
  std::unordered_map<const void*, size_t> index_;  // By the parameter's TensorImpl
  std::vector<quant::TernaryWeight> codes_;
  bool fresh_ = false;
};

}  // namespace tern::train
