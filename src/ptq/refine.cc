// See refine.h. Rows are independent of each other.
#include "ptq/refine.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_solve_ex.h>

#include <algorithm>
#include <cmath>
#include <vector>

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
constexpr int64_t kLanes = 8;  // Partial sums, so that the loop can be vectorized

double Dot(const float* a, const float* b, int64_t n) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  double total = 0;
  for (; i < n; ++i) total += double{a[i]} * double{b[i]};
  for (const float lane : lanes) total += double{lane};
  return total;
}

// The error of a row is a quadratic function of changes d of its scales, -2 d^T b + d^T A d: A from
// what the scales multiply, u H u^T by groups, b from the gradient. Both fp64.
struct ScaleSystems {
  at::Tensor a_NGG, b_NG;
};

ScaleSystems SystemsOfRows(const at::Tensor& u_NK, const at::Tensor& gradient_NK,
                           const at::Tensor& h_KK, int64_t groups) {
  const int64_t n = u_NK.size(0), k = u_NK.size(1), s = k / groups;
  ScaleSystems out = {at::empty({n, groups, groups}, at::kDouble),
                      at::empty({n, groups}, at::kDouble)};
  double *a = out.a_NGG.mutable_data_ptr<double>(), *b = out.b_NG.mutable_data_ptr<double>();
  const float *u = u_NK.const_data_ptr<float>(), *g = gradient_NK.const_data_ptr<float>();
  for (int64_t i = 0; i < groups; ++i) {
    const int64_t rest = k - i * s;  // The others are there already: A is symmetric
    const at::Tensor part_NR = Product(u_NK.slice(1, i * s, (i + 1) * s),
                                       h_KK.slice(0, i * s, (i + 1) * s).slice(1, i * s, k));
    const float* part = part_NR.const_data_ptr<float>();
    at::parallel_for(0, n, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const float* u_row = u + row * k;
        for (int64_t j = i; j < groups; ++j) {
          const double sum = Dot(part + row * rest + (j - i) * s, u_row + j * s, s);
          a[(row * groups + i) * groups + j] = a[(row * groups + j) * groups + i] = sum;
        }
        b[row * groups + i] = Dot(g + row * k + i * s, u_row + i * s, s);
      }
    });
  }
  return out;
}

// Changes of the scales that give the least error for these codes, [N, G].
at::Tensor BestChanges(const ScaleSystems& systems) {
  at::Tensor a_NGG = systems.a_NGG.clone();
  at::Tensor diagonal = a_NGG.diagonal(0, 1, 2);
  diagonal.add_(kRidge * diagonal.mean(1, /*keepdim=*/true) + 1e-30);
  return std::get<0>(at::linalg_solve_ex(a_NGG, systems.b_NG.unsqueeze(2))).squeeze(2);
}

// The new scale of a group, a scale of the format.
float Changed(const quant::WeightFormat& format, float old, double change) {
  const double scale = double{old} + change;
  // Beyond these the codes say little of their group: it has no use for a scale.
  if (!std::isfinite(scale) || scale / old <= 0.25 || scale / old >= 4) return old;
  return std::copysign(quant::RoundScale(format.scale_dtype, std::fabs(static_cast<float>(scale))),
                       old);
}

// What the error of a row changes by with these scales.
double ErrorChange(const float* old, const std::vector<float>& changed, const double* a_GG,
                   const double* b_G) {
  const int64_t groups = std::ssize(changed);
  const auto change = [&](int64_t i) {
    return double{changed[static_cast<size_t>(i)]} - double{old[i]};
  };
  double error = 0;
  for (int64_t i = 0; i < groups; ++i) {
    double slope = -2 * b_G[i];
    for (int64_t j = 0; j < groups; ++j) slope += a_GG[i * groups + j] * change(j);
    error += change(i) * slope;
  }
  return error;
}

// Rows for which the new scales give less error take them. True if there is one.
bool ImproveScales(const at::Tensor& gradient_NK, const at::Tensor& h_KK, QuantizedWeight* weight) {
  const at::Tensor& scale_NG = weight->scales.scale_RC;
  const int64_t n = scale_NG.size(0), groups = scale_NG.size(1),
                rows = std::max<int64_t>(1, kSystemNumbers / (groups * groups));
  const at::Tensor u_NK = Units(*weight);
  bool improved = false;
  std::vector<float> changed(static_cast<size_t>(groups));
  for (int64_t begin = 0; begin < n; begin += rows) {
    const int64_t end = std::min(begin + rows, n);
    const ScaleSystems systems =
        SystemsOfRows(u_NK.slice(0, begin, end), gradient_NK.slice(0, begin, end), h_KK, groups);
    const at::Tensor best_NG = BestChanges(systems).contiguous();
    for (int64_t row = 0; row < end - begin; ++row) {
      float* scale = scale_NG.mutable_data_ptr<float>() + (begin + row) * groups;
      const double* best = best_NG.const_data_ptr<double>() + row * groups;
      for (int64_t i = 0; i < groups; ++i)
        changed[static_cast<size_t>(i)] = Changed(weight->format, scale[i], best[i]);
      if (!(ErrorChange(scale, changed,
                        systems.a_NGG.const_data_ptr<double>() + row * groups * groups,
                        systems.b_NG.const_data_ptr<double>() + row * groups) < 0))
        continue;
      improved = true;
      std::copy(changed.begin(), changed.end(), scale);
    }
  }
  return improved;
}

// One pass over the columns of every row: each value to the grid's nearest to its optimum. The
// gradient becomes that of the new values.
void ImproveCodes(const at::Tensor& h_KK, at::Tensor* gradient_NK, QuantizedWeight* weight) {
  at::Tensor v_NK = quant::Dequantize(*weight);
  const int64_t n = v_NK.size(0), k = v_NK.size(1);
  const quant::WeightFormat& format = weight->format;
  const quant::Grid grid = format.grid();
  const int64_t rows = format.block_n == 0 ? n : format.block_n;
  const int64_t columns = format.block_k == 0 ? k : format.block_k;
  const at::Tensor scale_RC = quant::EffectiveScales(weight->scales);
  const float* scales = scale_RC.const_data_ptr<float>();
  const float* zeros =
      weight->scales.zero_RC.defined() ? weight->scales.zero_RC.const_data_ptr<float>() : nullptr;
  const float* h = h_KK.const_data_ptr<float>();
  float *v = v_NK.mutable_data_ptr<float>(), *g = gradient_NK->mutable_data_ptr<float>();
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
  const auto gradient = [&] { return Product(w_NK - quant::Dequantize(*weight), h_KK); };
  at::Tensor gradient_NK = gradient();
  for (int64_t round = 0; round < rounds; ++round) {
    if (HasRowGroups(*weight) && ImproveScales(gradient_NK, h_KK, weight)) gradient_NK = gradient();
    ImproveCodes(h_KK, &gradient_NK, weight);
  }
}

}  // namespace tern::ptq
