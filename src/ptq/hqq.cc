// See hqq.h. A matrix is seen as one group a row, [N * G, S], "M" groups of S weights.
#include "ptq/hqq.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "base/error.h"

namespace tern::ptq {
namespace {

using quant::BlockScales;
using quant::QuantizedWeight;
using quant::WeightFormat;

constexpr float kLargestHalf = 65504;

at::Tensor SumOfGroup(const at::Tensor& x_MS) { return x_MS.sum(1, /*keepdim=*/true, at::kDouble); }

// The half-quadratic step's W_e.
at::Tensor Shrink(const at::Tensor& x, double lp_norm, double beta) {
  const at::Tensor size = x.abs();
  // Up to here all of it is shrunk away, which saves the powers.
  const double whole = std::pow(beta, -1 / (2 - lp_norm));
  if (size.max().item<double>() < 0.999 * whole) return at::zeros_like(x);
  return x.sign() * (size - size.pow(lp_norm - 1) / beta).clamp_min(0);
}

class Solver {
 public:
  Solver(const at::Tensor& w_MS, const WeightFormat& format, const at::Tensor& importance_MS,
         const HqqOptions& options)
      : w_MS_(w_MS), format_(format), importance_MS_(importance_MS), options_(options) {}

  // The first point to compare with.
  void Keep(const BlockScales& scales) {
    best_ = scales;
    error_M1_ = Squares(w_MS_ - Values(scales));
  }

  // Descends from `scales`; groups that come to a lower error than any before keep where it was.
  // Scales stay at or below `largest_M1`.
  void Descend(BlockScales scales, const at::Tensor& largest_M1) {
    at::Tensor active_M1 = at::full({w_MS_.size(0), 1}, true, at::kBool);
    at::Tensor size_M1 = at::full({w_MS_.size(0), 1}, INFINITY, at::kDouble);
    double beta = options_.beta;
    for (int i = 0; i < options_.iterations; ++i) {
      const at::Tensor e_MS = w_MS_ - Values(scales);
      KeepBetter(scales, Squares(e_MS));
      const at::Tensor now_M1 = SumOfGroup(e_MS.abs());
      active_M1 = active_M1 & (now_M1 < size_M1);
      if (!active_M1.any().item<bool>()) return;
      size_M1 = now_M1;
      const BlockScales next =
          Fit(w_MS_ - Shrink(e_MS, options_.lp_norm, beta), scales, largest_M1);
      scales.scale_RC = at::where(active_M1, next.scale_RC, scales.scale_RC).contiguous();
      if (scales.zero_RC.defined())
        scales.zero_RC = at::where(active_M1, next.zero_RC, scales.zero_RC).contiguous();
      beta *= options_.kappa;
    }
    KeepBetter(scales, Squares(w_MS_ - Values(scales)));
  }

  const BlockScales& best() const { return best_; }

 private:
  at::Tensor Codes(const BlockScales& scales) const {
    return quant::QuantizeWith(w_MS_, format_, scales).codes_NK.to(at::kFloat);
  }
  at::Tensor Values(const BlockScales& scales) const {
    return quant::FakeQuantizeWith(w_MS_, format_, scales);
  }
  at::Tensor Weighted(const at::Tensor& x_MS) const {
    return importance_MS_.defined() ? x_MS * importance_MS_ : x_MS;
  }
  at::Tensor Squares(const at::Tensor& e_MS) const { return SumOfGroup(Weighted(e_MS.square())); }

  void KeepBetter(const BlockScales& scales, const at::Tensor& error_M1) {
    const at::Tensor better_M1 = error_M1 < error_M1_;
    error_M1_ = at::where(better_M1, error_M1, error_M1_);
    best_.scale_RC = at::where(better_M1, scales.scale_RC, best_.scale_RC).contiguous();
    if (best_.zero_RC.defined())
      best_.zero_RC = at::where(better_M1, scales.zero_RC, best_.zero_RC).contiguous();
  }

  // Zero points and scales with the least squared error to `aim` for the codes of `old`: those of
  // the line through (code, aim), the zero point rounded, then the best scale for it.
  BlockScales Fit(const at::Tensor& aim_MS, const BlockScales& old,
                  const at::Tensor& largest_M1) const {
    const at::Tensor q_MS = Codes(old);
    BlockScales out = old;
    at::Tensor u_MS = q_MS;
    if (old.zero_RC.defined()) {
      const quant::Grid grid = format_.grid();
      const at::Tensor count_M1 = importance_MS_.defined()
                                      ? SumOfGroup(importance_MS_)
                                      : at::full({1, 1}, w_MS_.size(1), at::kDouble);
      const at::Tensor mean_q = SumOfGroup(Weighted(q_MS)) / count_M1,
                       mean_w = SumOfGroup(Weighted(aim_MS)) / count_M1;
      const at::Tensor dq_MS = q_MS - mean_q.to(at::kFloat);
      const at::Tensor slope =
          SumOfGroup(Weighted(dq_MS * aim_MS)) / SumOfGroup(Weighted(dq_MS.square()));
      const at::Tensor zero =
          (mean_q - mean_w / slope).round().clamp(grid.lo, grid.hi).to(at::kFloat);
      out.zero_RC = at::where(zero.isfinite(), zero, old.zero_RC).contiguous();
      u_MS = q_MS - out.zero_RC;
    }
    const at::Tensor best_M1 =
        (SumOfGroup(Weighted(u_MS * aim_MS)) / SumOfGroup(Weighted(u_MS.square())))
            .to(at::kFloat)
            .contiguous();
    out.scale_RC = at::empty_like(old.scale_RC);
    const float *best = best_M1.const_data_ptr<float>(),
                *before = old.scale_RC.const_data_ptr<float>(),
                *largest = largest_M1.const_data_ptr<float>();
    float* scale = out.scale_RC.mutable_data_ptr<float>();
    for (int64_t i = 0; i < out.scale_RC.numel(); ++i) {
      const bool usable = best[i] > 0 && best[i] <= largest[i];  // Not of NaN
      scale[i] = usable ? quant::RoundScale(format_.scale_dtype, best[i]) : before[i];
    }
    return out;
  }

  const at::Tensor& w_MS_;
  const WeightFormat& format_;
  const at::Tensor& importance_MS_;  // Undefined: all 1
  const HqqOptions& options_;
  BlockScales best_;
  at::Tensor error_M1_;
};

BlockScales Column(const BlockScales& scales) {
  BlockScales out = scales;
  out.scale_RC = scales.scale_RC.view({-1, 1});
  if (scales.zero_RC.defined()) out.zero_RC = scales.zero_RC.view({-1, 1});
  return out;
}

}  // namespace

HqqResult Hqq(const at::Tensor& w_NK, const QuantizedWeight& rounded,
              const quant::RangeSearch& range, const at::Tensor& importance_K,
              const HqqOptions& options) {
  const WeightFormat& format = rounded.format;
  TERN_CHECK(format.element == quant::Element::kInt && format.block_n == 1, "HQQ of ",
             format.Describe());
  const int64_t groups = rounded.scales.scale_RC.size(1), s = w_NK.size(1) / groups;
  WeightFormat row = format;  // Of [M, S]: a group a row
  row.block_k = 0;
  const at::Tensor w_MS = w_NK.reshape({-1, s});
  at::Tensor importance_MS;
  if (importance_K.defined())
    importance_MS =
        importance_K.view({1, groups, s}).expand({w_NK.size(0), groups, s}).reshape({-1, s});
  Solver solver(w_MS, row, importance_MS, options);
  const BlockScales start = Column(rounded.scales);
  solver.Keep(start);
  quant::RangeSearch whole = range;
  whole.method = quant::RangeSearch::Method::kMinMax;
  const BlockScales widest = Column(quant::FindScales(w_NK, format, whole));
  // A code of a scale twice that of the whole range says next to nothing.
  at::Tensor largest_M1 = 2 * widest.scale_RC;
  if (format.scale_dtype == quant::ScaleDtype::kF16) largest_M1.clamp_max_(kLargestHalf);
  solver.Descend(widest, largest_M1);
  if (range.method != whole.method) solver.Descend(start, largest_M1);
  HqqResult result;
  result.groups = start.scale_RC.numel();
  at::Tensor moved = solver.best().scale_RC != start.scale_RC;
  if (start.zero_RC.defined()) moved = moved | (solver.best().zero_RC != start.zero_RC);
  result.improved = moved.sum().item<int64_t>();
  BlockScales scales = rounded.scales;
  scales.scale_RC = solver.best().scale_RC.view(rounded.scales.scale_RC.sizes()).contiguous();
  if (scales.zero_RC.defined())
    scales.zero_RC = solver.best().zero_RC.view(rounded.scales.zero_RC.sizes()).contiguous();
  result.weight = quant::QuantizeWith(w_NK, format, scales);
  return result;
}

}  // namespace tern::ptq
