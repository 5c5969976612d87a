// The 2-bit weights of a decoder whose BitLinear matrices are spread over the ranks (ZeRO-3;
// Rajbhandari et al., arXiv 1910.02054; per block as FSDP, arXiv 2304.11277). A rank quantizes the
// rows it holds and all gather the codes: 1/8 of the bytes of BF16. The scale is that of the whole
// matrix: every rank gets all block sums and joins them in their order, so forward has the bits of
// one process. The codes stay for the step: 1/4 byte a weight, so backward needs no second gather.
#pragma once

#include <deque>
#include <functional>
#include <unordered_map>
#include <vector>

#include "nn/weight_source.h"
#include "parallel/group.h"
#include "parallel/row_split.h"

namespace tern::train {

class GatheredCodes : public nn::WeightSource {
 public:
  struct Matrix {
    at::Tensor rows_NK;  // The parameter: this rank's rows
    parallel::RowSplit split;
    int64_t layer = 0;  // Matrices of one layer travel together
  };
  using GradientSink = std::function<void(size_t matrix, const at::Tensor& dw_NK)>;

  GatheredCodes(parallel::Group& group, std::vector<Matrix> matrices, GradientSink sink);

  // Starts gathering the codes of the rows as they are now; nothing when they have not changed
  // since. A collective. Throws NumericError, on all ranks, when a matrix holds NaN or Inf.
  void Refresh();
  // The rows have changed.
  void Invalidate() { fresh_ = false; }

  const quant::TernaryWeight& Ternary(const at::Tensor& w_NK) override;
  bool TakeGradient(const at::Tensor& w_NK, const at::Tensor& dw_NK) override;

 private:
  // One layer's codes on their way: [ranks, bytes], each rank's matrices one after the other.
  struct Transfer {
    size_t begin = 0, end = 0;  // Matrices
    at::Tensor all_RB;
    parallel::Pending pending;
    bool arrived = false;
  };
  std::vector<float> GatherScales();
  void Send(size_t begin, size_t end, const std::vector<float>& betas);
  void Receive(Transfer* transfer);
  size_t IndexOf(const at::Tensor& w_NK) const;

  parallel::Group& group_;
  std::vector<Matrix> matrices_;
  GradientSink sink_;
  std::unordered_map<const void*, size_t> index_;  // By the parameter's TensorImpl
  std::vector<quant::TernaryWeight> codes_;
  std::vector<size_t> transfer_of_;
  std::deque<Transfer> transfers_;
  bool fresh_ = false;
};

}  // namespace tern::train
