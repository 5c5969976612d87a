// See gptq.h. The columns of one block depend on each other, rows do not: a thread takes rows
// through a whole block with the block's part of the factor, and the columns behind the block get
// its errors in one matrix product.
#include "ptq/gptq.h"

#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "ptq/product.h"
#include "ptq/refine.h"
#include "quant/rounding_loops.h"

namespace tern::ptq {
namespace {

using quant::Grid;
using quant::WeightFormat;

constexpr int64_t kBlock = 128;
constexpr int64_t kRowGrain = 8;
constexpr double kMaxDamping = 1.0;

constexpr int64_t kInverseBlock = 128;

// The inverse of an upper triangular matrix, in place.
void InvertUpper(at::Tensor u_KK) {
  const int64_t k = u_KK.size(0), half = k / 2;
  if (k <= kInverseBlock) {
    u_KK.copy_(at::linalg_solve_triangular(u_KK, at::eye(k, u_KK.options()), /*upper=*/true));
    return;
  }
  const at::Tensor first = u_KK.slice(0, 0, half).slice(1, 0, half),
                   last = u_KK.slice(0, half).slice(1, half);
  at::Tensor corner = u_KK.slice(0, 0, half).slice(1, half);
  InvertUpper(first);
  InvertUpper(last);
  corner.copy_(at::mm(first, at::mm(corner, last)).neg_());
}

// The upper Cholesky factor R of (H + damping * mean diagonal)^-1 = R^T R, fp32; nothing when it
// does not exist. With J the matrix that reverses an order and J H J = L L^T, H = (J L J) (J L J)^T
// and R is the inverse of the upper triangular J L J.
std::optional<at::Tensor> InverseFactor(const at::Tensor& h_KK, double damping) {
  at::Tensor h = h_KK.flip({0, 1}).to(at::kDouble);
  h.diagonal().add_(damping * h.diagonal().mean().item<double>());
  auto [lower, info] = at::linalg_cholesky_ex(h);
  if (info.item<int>() != 0) return std::nullopt;
  h.reset();  // Two of these matrices at a time: they are the largest of the work on a layer
  at::Tensor factor = lower.flip({0, 1});
  lower.reset();
  InvertUpper(factor);
  if (!factor.isfinite().all().item<bool>()) return std::nullopt;
  return factor.to(at::kFloat).contiguous();
}

// One pass over the columns of a matrix whose columns are in the order of the pass.
class Sweep {
 public:
  // column[i]: the file's column at place i of the pass. `scales` of the file's groups; those of
  // groups that lie within a block are found anew when `dynamic`.
  Sweep(at::Tensor w_NK, const at::Tensor& factor_KK, const WeightFormat& format,
        quant::BlockScales* scales, std::vector<int64_t> column, at::Tensor importance_K,
        const GptqOptions& options, bool dynamic)
      : w_NK_(std::move(w_NK)),
        factor_KK_(factor_KK),
        format_(format),
        grid_(format.grid()),
        scales_(scales),
        column_(std::move(column)),
        importance_K_(std::move(importance_K)),
        options_(options),
        dynamic_(dynamic) {}

  // Leaves the dequantized values in w_NK.
  void Run() {
    const int64_t k = w_NK_.size(1);
    for (int64_t begin = 0; begin < k; begin += kBlock) {
      const int64_t end = std::min(begin + kBlock, k);
      at::Tensor error_NB = at::empty({w_NK_.size(0), end - begin}, at::kFloat);
      at::parallel_for(0, w_NK_.size(0), kRowGrain, [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row)
          Row(row, begin, end, error_NB.mutable_data_ptr<float>() + row * (end - begin));
      });
      if (end == k) break;
      at::Tensor tail = w_NK_.slice(1, end, k);
      tail.sub_(at::mm(error_NB, factor_KK_.slice(0, begin, end).slice(1, end, k)));
    }
  }

 private:
  void Row(int64_t row, int64_t begin, int64_t end, float* error) {
    const int64_t k = w_NK_.size(1), groups = scales_->scale_RC.size(1);
    const int64_t rows = format_.block_n == 0 ? w_NK_.size(0) : format_.block_n;
    const int64_t columns = format_.block_k == 0 ? k : format_.block_k;
    float* w = w_NK_.mutable_data_ptr<float>() + row * k;
    float* scale = scales_->scale_RC.mutable_data_ptr<float>() + row / rows * groups;
    float* zero = scales_->zero_RC.defined()
                      ? scales_->zero_RC.mutable_data_ptr<float>() + row / rows * groups
                      : nullptr;
    const float* factor = factor_KK_.const_data_ptr<float>();
    for (int64_t i = begin; i < end; ++i) {
      const int64_t group = column_[static_cast<size_t>(i)] / columns;
      if (dynamic_ && i % columns == 0) FindScale(w + i, columns, i, scale + group, zero, group);
      const float s = scale[group] / scales_->global, z = zero != nullptr ? zero[group] : 0.0f;
      const float value = (quant::RoundToGrid(grid_, w[i] / s + z) - z) * s;
      const float* f = factor + i * k;
      const float e = (w[i] - value) / f[i];
      w[i] = value;
      error[i - begin] = e;
      quant::SubtractScaled(f + i + 1, e, end - i - 1, w + i + 1);
    }
  }

  void FindScale(const float* w, int64_t count, int64_t first, float* scale, float* zero,
                 int64_t group) const {
    const quant::SegmentScale found =
        quant::FindSegmentScale(w, count, format_, options_.range,
                                importance_K_.const_data_ptr<float>() + first, scales_->global);
    *scale = found.scale;
    if (zero != nullptr) zero[group] = found.zero;
  }

  at::Tensor w_NK_, factor_KK_;
  const WeightFormat& format_;
  Grid grid_;
  quant::BlockScales* scales_;
  std::vector<int64_t> column_;
  at::Tensor importance_K_;
  const GptqOptions& options_;
  bool dynamic_;
};

// Groups that begin and end within a block of the pass can have their scales found on the way.
bool GroupsLieInBlocks(const WeightFormat& format) {
  return format.block_n == 1 && format.block_k > 0 && kBlock % format.block_k == 0;
}

}  // namespace

GptqResult Gptq(const at::Tensor& w_NK, const at::Tensor& h_KK, const WeightFormat& format,
                const GptqOptions& options) {
  const int64_t k = w_NK.size(1);
  TERN_CHECK(h_KK.dim() == 2 && h_KK.size(0) == k && h_KK.size(1) == k, "a Hessian ", h_KK.sizes(),
             " for ", k, " columns");
  if (!h_KK.isfinite().all().item<bool>()) {
    throw NumericError(
        "the sums of the layer's inputs hold NaN or Inf: activations overflow on this calibration "
        "text; want other text, or a method that needs none (--method rtn or hqq)");
  }
  GptqResult result;
  at::Tensor h = h_KK.clone(), w = w_NK.clone();
  const at::Tensor dead_K = h.diagonal() <= 0;
  result.dead_columns = dead_K.sum().item<int64_t>();
  if (result.dead_columns > 0) {
    h.diagonal().masked_fill_(dead_K, 1.0);
    w.masked_fill_(dead_K.unsqueeze(0), 0.0);
  }
  const at::Tensor diagonal_K = h.diagonal().contiguous();
  quant::BlockScales scales = quant::FindScales(w, format, options.range, diagonal_K);
  const at::Tensor order_K = options.activation_order
                                 ? at::argsort(diagonal_K, /*stable=*/true, -1, /*descending=*/true)
                                 : at::arange(k, at::kLong);
  at::Tensor h_ordered = h.index_select(0, order_K).index_select(1, order_K);
  std::optional<at::Tensor> factor;
  for (result.damping = options.damping; result.damping <= kMaxDamping; result.damping *= 2) {
    factor = InverseFactor(h_ordered, result.damping);
    if (factor) break;
  }
  h_ordered.reset();
  if (!factor) {
    result.fallback = StrCat("the Hessian is not positive definite with damping up to ",
                             kMaxDamping, " of its mean diagonal; rounded to nearest");
    result.damping = 0;
    result.weight = quant::Quantize(w_NK, format, options.range);
    return result;
  }
  const int64_t* order = order_K.const_data_ptr<int64_t>();
  at::Tensor ordered_NK = w.index_select(1, order_K).contiguous();
  Sweep(ordered_NK, *factor, format, &scales, std::vector<int64_t>(order, order + k), diagonal_K,
        options, !options.activation_order && GroupsLieInBlocks(format))
      .Run();
  const at::Tensor back_K = at::argsort(order_K);
  const at::Tensor value_NK = ordered_NK.index_select(1, back_K).contiguous();
  // The values lie on the grid already: this only reads off their codes.
  result.weight = quant::QuantizeWith(value_NK, format, scales);
  if (options.rounds > 0) {
    h.diagonal().add_(result.damping * diagonal_K.mean().item<double>());
    Refine(w, h.contiguous(), options.rounds, &result.weight);
  }
  return result;
}

double OutputError(const at::Tensor& w_NK, const at::Tensor& v_NK, const at::Tensor& h_KK) {
  const auto power = [&](const at::Tensor& x) {
    return (Product(x, h_KK) * x).sum(at::kDouble).item<double>();
  };
  const double output = power(w_NK);
  return output > 0 ? std::max(power(w_NK - v_NK), 0.0) / output : 0.0;
}

}  // namespace tern::ptq
