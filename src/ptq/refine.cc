// See refine.h. Rows are independent of each other.
#include "ptq/refine.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_solve_ex.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "ptq/product.h"
#include "quant/rounding_loops.h"

namespace tern::ptq {
namespace {

using quant::QuantizedWeight;

constexpr int64_t kRowGrain = 4;
// Take a row of H from the cache together; their gradients stay in the second level.
constexpr int64_t kRowsAtOnce = 16;
// Added to the diagonal of a row's equations, relative to it: groups whose codes are all 0 have
// none.
constexpr double kRidge = 1e-6;

// tr(E H E^T) of each row, [N], fp64.
at::Tensor RowErrors(const at::Tensor& w_NK, const at::Tensor& v_NK, const at::Tensor& h_KK) {
  const at::Tensor e_NK = w_NK - v_NK;
  return (Product(e_NK, h_KK) * e_NK).sum(1, /*keepdim=*/false, at::kDouble);
}

bool HasRowGroups(const QuantizedWeight& w) {
  return w.format.element == quant::Element::kInt && w.format.block_n == 1;
}

// What the scales multiply: code - zero, fp32 [N, K].
at::Tensor Units(const QuantizedWeight& w) {
  QuantizedWeight units = w;
  units.scales.scale_RC = w.scales.scale_RC.new_ones(w.scales.scale_RC.sizes());
  return quant::Dequantize(units);
}

// The systems of this many numbers are solved at once.
constexpr int64_t kSystemNumbers = int64_t{1} << 24;

// The scales with the least error for these codes, not yet rounded, [N, G] fp64. Rows do not depend
// on each other.
at::Tensor BestScalesOfRows(const at::Tensor& w_NK, const at::Tensor& h_KK, const at::Tensor& u_NK,
                            int64_t groups) {
  const int64_t n = w_NK.size(0), k = w_NK.size(1), s = k / groups;
  at::Tensor a_NGG = at::empty({n, groups, groups}, at::kDouble);
  for (int64_t g = 0; g < groups; ++g) {
    const at::Tensor part_NK =
        Product(u_NK.slice(1, g * s, (g + 1) * s), h_KK.slice(0, g * s, (g + 1) * s));
    a_NGG.select(1, g).copy_((part_NK * u_NK).view({n, groups, s}).sum(2, false, at::kDouble));
  }
  const at::Tensor b_NG =
      (Product(w_NK, h_KK) * u_NK).view({n, groups, s}).sum(2, false, at::kDouble);
  at::Tensor diagonal = a_NGG.diagonal(0, 1, 2);
  diagonal.add_(kRidge * diagonal.mean(1, /*keepdim=*/true) + 1e-30);
  return std::get<0>(at::linalg_solve_ex(a_NGG, b_NG.unsqueeze(2))).squeeze(2);
}

at::Tensor BestScales(const at::Tensor& w_NK, const at::Tensor& h_KK, const at::Tensor& u_NK,
                      int64_t groups) {
  const int64_t n = w_NK.size(0), rows = std::max<int64_t>(1, kSystemNumbers / (groups * groups));
  if (rows >= n) return BestScalesOfRows(w_NK, h_KK, u_NK, groups);
  at::Tensor out_NG = at::empty({n, groups}, at::kDouble);
  for (int64_t begin = 0; begin < n; begin += rows) {
    const int64_t end = std::min(begin + rows, n);
    out_NG.slice(0, begin, end)
        .copy_(
            BestScalesOfRows(w_NK.slice(0, begin, end), h_KK, u_NK.slice(0, begin, end), groups));
  }
  return out_NG;
}

// Rows for which the new scales give less error take them.
void ImproveScales(const at::Tensor& w_NK, const at::Tensor& h_KK, QuantizedWeight* weight) {
  const at::Tensor old_NG = weight->scales.scale_RC;
  const at::Tensor best_NG =
      BestScales(w_NK, h_KK, Units(*weight), old_NG.size(1)).to(at::kFloat).contiguous();
  at::Tensor new_NG = at::empty_like(old_NG);
  const float *best = best_NG.const_data_ptr<float>(), *old = old_NG.const_data_ptr<float>();
  float* rounded = new_NG.mutable_data_ptr<float>();
  for (int64_t i = 0; i < new_NG.numel(); ++i) {
    // Beyond these the codes say little of their group: it has no use for a scale.
    const bool usable = std::isfinite(best[i]) && best[i] / old[i] > 0.25f && best[i] / old[i] < 4;
    rounded[i] =
        usable ? std::copysign(quant::RoundScale(weight->format.scale_dtype, std::fabs(best[i])),
                               old[i])
               : old[i];
  }
  QuantizedWeight changed = *weight;
  changed.scales.scale_RC = new_NG;
  const at::Tensor better_N = RowErrors(w_NK, quant::Dequantize(changed), h_KK) <
                              RowErrors(w_NK, quant::Dequantize(*weight), h_KK);
  weight->scales.scale_RC = at::where(better_N.unsqueeze(1), new_NG, old_NG).contiguous();
}

// One pass over the columns of every row: each value to the grid's nearest to its optimum.
void ImproveCodes(const at::Tensor& w_NK, const at::Tensor& h_KK, QuantizedWeight* weight) {
  at::Tensor v_NK = quant::Dequantize(*weight);
  at::Tensor gradient_NK = Product(w_NK - v_NK, h_KK);  // Falls with each change of a value.
  const int64_t n = w_NK.size(0), k = w_NK.size(1);
  const quant::WeightFormat& format = weight->format;
  const quant::Grid grid = format.grid();
  const int64_t rows = format.block_n == 0 ? n : format.block_n;
  const int64_t columns = format.block_k == 0 ? k : format.block_k;
  const at::Tensor scale_RC = quant::EffectiveScales(weight->scales);
  const float* scales = scale_RC.const_data_ptr<float>();
  const float* zeros =
      weight->scales.zero_RC.defined() ? weight->scales.zero_RC.const_data_ptr<float>() : nullptr;
  const float* h = h_KK.const_data_ptr<float>();
  float *v = v_NK.mutable_data_ptr<float>(), *g = gradient_NK.mutable_data_ptr<float>();
  const auto improve = [&](int64_t row, int64_t j) {
    const int64_t block = row / rows * scale_RC.size(1) + j / columns, at = row * k + j;
    const float s = scales[block], z = zeros != nullptr ? zeros[block] : 0.0f;
    const float* h_row = h + j * k;
    const float best = v[at] + g[at] / h_row[j];
    const float value = (quant::RoundToGrid(grid, best / s + z) - z) * s;
    const float change = value - v[at];
    if (change == 0) return;
    v[at] = value;
    quant::SubtractScaled(h_row, change, k, g + row * k);
  };
  at::parallel_for(0, n, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += kRowsAtOnce) {
      for (int64_t j = 0; j < k; ++j)
        for (int64_t row = first; row < std::min(first + kRowsAtOnce, end); ++row) improve(row, j);
    }
  });
  *weight = quant::QuantizeWith(v_NK, format, weight->scales);
}

}  // namespace

void Refine(const at::Tensor& w_NK, const at::Tensor& h_KK, int64_t rounds,
            QuantizedWeight* weight) {
  for (int64_t round = 0; round < rounds; ++round) {
    if (HasRowGroups(*weight)) ImproveScales(w_NK, h_KK, weight);
    ImproveCodes(w_NK, h_KK, weight);
  }
}

}  // namespace tern::ptq
