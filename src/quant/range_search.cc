// Scales of blocks (weight_quantizer.h): from the range of the weights, or the one of several
// shrunk ranges with the least squared error. Shrinking trades clipped large weights for finer
// steps, which is worth most at 2 and 3 bits.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "quant/device_neutral_formats.h"
#include "quant/rounding_loops.h"
#include "quant/weight_quantizer.h"

namespace tern::quant {
namespace {

constexpr int64_t kLanes = 8;       // Partial sums, so that the loops can be vectorized
constexpr int64_t kBlockGrain = 4;  // Rows of blocks a thread takes at least
constexpr float kNvfp4Range = 448 * 6;

using Scale = SegmentScale;

struct Range {
  float min = 0, max = 0;  // 0 is always within
};

// Throws NumericError for NaN and Inf: 0 * x is 0 for all others.
Range RangeOf(const WeightBlock& block) {
  float min[kLanes] = {}, max[kLanes] = {}, probe[kLanes] = {};
  for (int64_t row = 0; row < block.rows; ++row) {
    const float* w = block.w + row * block.ldw;
    int64_t i = 0;
    for (; i + kLanes <= block.columns; i += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const float x = w[i + lane];
        min[lane] = x < min[lane] ? x : min[lane];
        max[lane] = x > max[lane] ? x : max[lane];
        probe[lane] += x * 0.0f;
      }
    }
    for (; i < block.columns; ++i) {
      min[0] = std::min(min[0], w[i]);
      max[0] = std::max(max[0], w[i]);
      probe[0] += w[i] * 0.0f;
    }
  }
  Range out;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    out.min = std::min(out.min, min[lane]);
    out.max = std::max(out.max, max[lane]);
    if (probe[lane] != 0) throw NumericError("the weights hold NaN or Inf");
  }
  return out;
}

// The ends of a block's range and what errors of theirs count: a range that clips them by so much
// that these errors alone are no less than the least one known need not be looked at.
class Ends {
 public:
  Ends(const WeightBlock& block, const Range& range) : min_(range.min), max_(range.max) {
    for (int64_t row = 0; row < block.rows; ++row) {
      const float* w = block.w + row * block.ldw;
      for (int64_t i = 0; i < block.columns; ++i) {
        const float importance = block.importance != nullptr ? block.importance[i] : 1.0f;
        if (w[i] == min_) of_min_ = std::max(of_min_, importance);
        if (w[i] == max_) of_max_ = std::max(of_max_, importance);
      }
    }
  }

  // At most RoundingError of the block for values between `a` and `b`: the larger of two of its
  // terms, made by its operations, all of which keep the order of their operands.
  double LeastError(float a, float b) const {
    const auto [lo, hi] = std::minmax(a, b);
    const auto term = [&](float w, float importance) {
      const float clipped = std::max({w - hi, lo - w, 0.0f});
      return clipped * clipped * importance;
    };
    return std::max(term(min_, of_min_), term(max_, of_max_));
  }

 private:
  float min_, max_, of_min_ = 0, of_max_ = 0;
};

class Searcher {
 public:
  Searcher(const WeightFormat& format, const RangeSearch& range, float global)
      : format_(format), range_(range), grid_(format.grid()), global_(global) {}

  Scale Find(const WeightBlock& block) const {
    Range range = RangeOf(block);
    const bool shared = range_.amax && !format_.has_global_scale;
    if (shared) range = {-*range_.amax, *range_.amax};
    if (shared || range_.method == RangeSearch::Method::kMinMax) return MinMax(range);
    const Ends ends(block, range);
    Scale best = MinMax(range);
    double least = Error(block, best);
    const bool both = range_.signed_scale && grid_.integer && format_.symmetric;
    for (int step = 0; step < range_.steps; ++step) {
      const float part =
          1 - (1 - range_.least) * static_cast<float>(step) / static_cast<float>(range_.steps);
      for (const float sign : {1.0f, -1.0f}) {
        if (sign < 0 && !both) continue;
        Scale candidate = Candidate(range, part);
        candidate.scale *= sign;
        if (candidate.scale == best.scale && candidate.zero == best.zero) continue;
        if (ends.LeastError(Value(grid_.lo, candidate), Value(grid_.hi, candidate)) >= least)
          continue;
        const double error = Error(block, candidate);
        if (error < least) {
          least = error;
          best = candidate;
        }
      }
    }
    return best;
  }

 private:
  static float Amax(const Range& range) { return std::max(-range.min, range.max); }
  float Rounded(float scale) const { return RoundScale(format_.scale_dtype, scale * global_); }

  Scale WithZero(float min, float max) const {
    Scale out;
    out.scale = Rounded((max - min) / (grid_.hi - grid_.lo));
    out.zero = RoundToGrid(grid_, grid_.lo - min / (out.scale / global_));
    return out;
  }

  Scale MinMax(const Range& range) const {
    if (!format_.symmetric) return WithZero(range.min, range.max);
    const float half = grid_.integer ? (grid_.hi - grid_.lo) / 2 : grid_.hi;
    return {Rounded(Amax(range) / half), 0};
  }

  // The largest range of the search has its largest weight at the code `hi`.
  Scale Candidate(const Range& range, float part) const {
    if (!format_.symmetric) return WithZero(range.min * part, range.max * part);
    return {Rounded(Amax(range) * part / grid_.hi), 0};
  }

  float Value(float code, const Scale& scale) const {
    return (code - scale.zero) * (scale.scale / global_);
  }

  double Error(const WeightBlock& block, const Scale& scale) const {
    return RoundingError(block, grid_, scale.scale / global_, scale.zero);
  }

  const WeightFormat& format_;
  const RangeSearch& range_;
  Grid grid_;
  float global_;
};

}  // namespace

SegmentScale FindSegmentScale(const float* w, int64_t count, const WeightFormat& format,
                              const RangeSearch& range, const float* importance, float global) {
  return Searcher(format, range, global).Find({w, 1, count, count, importance});
}

float MaxAbs(const at::Tensor& w_NK) {
  if (!w_NK.device().is_cpu()) return neutral::MaxAbs(w_NK);
  const Range range =
      RangeOf({w_NK.const_data_ptr<float>(), 1, w_NK.numel(), w_NK.numel(), nullptr});
  return std::max(-range.min, range.max);
}

float GlobalScaleOf(float amax) {
  // An all-zero matrix, or one so small that G would be no number: any G holds it.
  const float global = kNvfp4Range / amax;
  return std::isfinite(global) ? global : 1.0f;
}

BlockScales FindScales(const at::Tensor& w_NK, const WeightFormat& format, const RangeSearch& range,
                       const at::Tensor& importance_K) {
  TERN_CHECK(w_NK.dim() == 2 && w_NK.scalar_type() == at::kFloat && w_NK.is_contiguous(),
             "w_NK is ", w_NK.scalar_type(), " ", w_NK.sizes(), "; want a contiguous fp32 matrix");
  const int64_t n = w_NK.size(0), k = w_NK.size(1);
  CheckGroups(format, k, "the matrix");
  TERN_CHECK(!importance_K.defined() || importance_K.numel() == k, "importance of ",
             importance_K.numel(), " columns, not ", k);
  TERN_CHECK(!range.amax || format.HasTensorScale(), "a shared range of ", format.Describe());
  if (!w_NK.device().is_cpu()) return neutral::FindScales(w_NK, format, range);
  const int64_t rows = format.block_n == 0 ? n : format.block_n;
  const int64_t columns = format.block_k == 0 ? k : format.block_k;
  const int64_t r_count = (n + rows - 1) / rows, c_count = (k + columns - 1) / columns;
  BlockScales out;
  out.scale_RC = at::empty({r_count, c_count}, at::kFloat);
  if (!format.symmetric) out.zero_RC = at::empty({r_count, c_count}, at::kFloat);
  if (format.has_global_scale) out.global = GlobalScaleOf(range.amax ? *range.amax : MaxAbs(w_NK));
  const Searcher searcher(format, range, out.global);
  const float* w = w_NK.const_data_ptr<float>();
  const float* importance = importance_K.defined() ? importance_K.const_data_ptr<float>() : nullptr;
  float* scale = out.scale_RC.mutable_data_ptr<float>();
  float* zero = format.symmetric ? nullptr : out.zero_RC.mutable_data_ptr<float>();
  at::parallel_for(0, r_count, kBlockGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t c = 0; c < c_count; ++c) {
        const Scale found =
            searcher.Find({w + r * rows * k + c * columns, std::min(rows, n - r * rows),
                           std::min(columns, k - c * columns), k,
                           importance != nullptr ? importance + c * columns : nullptr});
        scale[r * c_count + c] = found.scale;
        if (zero != nullptr) zero[r * c_count + c] = found.zero;
      }
    }
  });
  return out;
}

}  // namespace tern::quant
