// See grid_scales.h. A scale of bf16 has 8 bits and a code less its zero point at most 8, so values
// are exact multiples of their scale, and so is the least of them.
#include "quant/grid_scales.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace tern::quant {
namespace {

using Scale = SegmentScale;

// Zero point for multiples from `low` to `high` of a scale, 0 among them; nothing when there are
// more than codes.
std::optional<float> ZeroFor(const Grid& grid, bool symmetric, float low, float high) {
  if (symmetric) return low >= grid.lo && high <= grid.hi ? std::optional(0.0f) : std::nullopt;
  if (high - low > grid.hi - grid.lo) return std::nullopt;
  return grid.lo - low;
}

std::optional<Scale> Find(const float* w, int64_t count, const WeightFormat& format) {
  const Grid grid = format.grid();
  float least = std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(w[i])) return std::nullopt;
    if (w[i] != 0) least = std::min(least, std::fabs(w[i]));
  }
  if (std::isinf(least))
    return Scale{RoundScale(format.scale_dtype, 0), format.symmetric ? 0 : grid.lo};
  for (float divisor = 1; divisor <= grid.hi - grid.lo; ++divisor) {
    const float scale = least / divisor;
    if (scale * divisor != least || RoundScale(format.scale_dtype, scale) != scale) continue;
    float low = 0, high = 0;
    bool multiples = true;
    for (int64_t i = 0; i < count && multiples; ++i) {
      const float multiple = std::nearbyint(w[i] / scale);
      multiples = multiple * scale == w[i];
      low = std::min(low, multiple);
      high = std::max(high, multiple);
    }
    const std::optional<float> zero = ZeroFor(grid, format.symmetric, low, high);
    if (multiples && zero) return Scale{scale, *zero};
  }
  return std::nullopt;
}

}  // namespace

std::optional<BlockScales> ScalesOnGrid(const at::Tensor& w_NK, const WeightFormat& format) {
  TERN_CHECK(format.element == Element::kInt && format.block_n == 1 &&
                 format.scale_dtype == ScaleDtype::kBf16,
             format.Describe());
  const int64_t n = w_NK.size(0), k = w_NK.size(1);
  CheckGroups(format, k, "the matrix");
  const int64_t columns = format.block_k == 0 ? k : format.block_k, groups = k / columns;
  BlockScales out;
  out.scale_RC = at::empty({n, groups}, at::kFloat);
  if (!format.symmetric) out.zero_RC = at::empty({n, groups}, at::kFloat);
  const float* w = w_NK.const_data_ptr<float>();
  float* scale = out.scale_RC.mutable_data_ptr<float>();
  float* zero = format.symmetric ? nullptr : out.zero_RC.mutable_data_ptr<float>();
  for (int64_t i = 0; i < n * groups; ++i) {
    const std::optional<Scale> found = Find(w + i * columns, columns, format);
    if (!found) return std::nullopt;
    scale[i] = found->scale;
    if (zero != nullptr) zero[i] = found->zero;
  }
  return out;
}

}  // namespace tern::quant
