// See gathered_codes.h.
#include "train/gathered_codes.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "kernels/ternary_pack/t2.h"
#include "quant/ternary_rows.h"
#include "train/whole_scales.h"

namespace tern::train {

GatheredCodes::GatheredCodes(parallel::Group& group, std::vector<Matrix> matrices,
                             GradientSink sink)
    : group_(group), matrices_(std::move(matrices)), sink_(std::move(sink)) {
  codes_.resize(matrices_.size());
  transfer_of_.resize(matrices_.size());
  for (size_t i = 0; i < matrices_.size(); ++i) {
    index_[matrices_[i].rows_NK.unsafeGetTensorImpl()] = i;
  }
}

size_t GatheredCodes::IndexOf(const at::Tensor& w_NK) const {
  const auto found = index_.find(w_NK.unsafeGetTensorImpl());
  TERN_CHECK(found != index_.end(), "a matrix ", w_NK.sizes(), " that is not spread over ranks");
  return found->second;
}

std::vector<float> GatheredCodes::GatherScales() {
  std::vector<ScaleRows> rows;
  for (const Matrix& m : matrices_)
    rows.push_back({quant::BlockSums(m.rows_NK), m.split, m.rows_NK.size(1)});
  return JoinScales(group_, rows);
}

void GatheredCodes::Send(size_t begin, size_t end, const std::vector<float>& betas) {
  int64_t longest = 0;
  for (int rank = 0; rank < group_.size(); ++rank) {
    int64_t bytes = 0;
    for (size_t i = begin; i < end; ++i) {
      bytes += matrices_[i].split.rows(rank) * kernels::T2RowBytes(matrices_[i].rows_NK.size(1));
    }
    longest = std::max(longest, bytes);
  }
  const at::TensorOptions bytes = matrices_.front().rows_NK.options().dtype(at::kByte);
  const at::Tensor mine = at::empty({longest}, bytes).zero_();
  int64_t at = 0;
  for (size_t i = begin; i < end; ++i) {
    const Matrix& m = matrices_[i];
    codes_[i].beta = betas[i];
    codes_[i].k = m.rows_NK.size(1);
    transfer_of_[i] = transfers_.size();
    const int64_t rows = m.rows_NK.size(0), row_bytes = kernels::T2RowBytes(codes_[i].k);
    quant::QuantizeRowsTo(m.rows_NK, betas[i],
                          mine.narrow(0, at, rows * row_bytes).view({rows, row_bytes}));
    at += rows * row_bytes;
  }
  Transfer transfer;
  transfer.begin = begin;
  transfer.end = end;
  transfer.all_RB = at::empty({group_.size(), longest}, bytes);
  transfer.pending = group_.AllGather(mine, transfer.all_RB, "codes");
  transfers_.push_back(std::move(transfer));
}

void GatheredCodes::Refresh() {
  if (fresh_) return;
  const at::NoGradGuard no_grad;
  for (Transfer& transfer : transfers_) Receive(&transfer);  // None is left on its way.
  transfers_.clear();
  const std::vector<float> betas = GatherScales();
  for (size_t begin = 0; begin < matrices_.size();) {
    size_t end = begin;
    while (end < matrices_.size() && matrices_[end].layer == matrices_[begin].layer) ++end;
    Send(begin, end, betas);
    begin = end;
  }
  fresh_ = true;
}

void GatheredCodes::Receive(Transfer* transfer) {
  if (transfer->arrived) return;
  transfer->pending.Wait();
  std::vector<int64_t> at(static_cast<size_t>(group_.size()), 0);
  for (size_t i = transfer->begin; i < transfer->end; ++i) {
    const int64_t row_bytes = kernels::T2RowBytes(codes_[i].k);
    // A tensor of its own for each step: the last one's may still be saved for a backward pass.
    const parallel::RowSplit& split = matrices_[i].split;
    codes_[i].t2_NC = at::empty({split.all(), row_bytes}, transfer->all_RB.options());
    for (int rank = 0; rank < group_.size(); ++rank) {
      const int64_t rows = split.rows(rank), bytes = rows * row_bytes;
      int64_t& from = at[static_cast<size_t>(rank)];
      codes_[i]
          .t2_NC.narrow(0, split.first(rank), rows)
          .copy_(transfer->all_RB.select(0, rank).narrow(0, from, bytes).view({rows, row_bytes}));
      from += bytes;
    }
  }
  transfer->all_RB = at::Tensor();
  transfer->arrived = true;
}

const quant::TernaryWeight& GatheredCodes::Ternary(const at::Tensor& w_NK) {
  const size_t index = IndexOf(w_NK);
  TERN_CHECK(!transfers_.empty(), "forward before Refresh");
  Receive(&transfers_[transfer_of_[index]]);
  return codes_[index];
}

bool GatheredCodes::TakeGradient(const at::Tensor& w_NK, const at::Tensor& dw_NK) {
  sink_(IndexOf(w_NK), dw_NK);
  return true;
}

}  // namespace tern::train
