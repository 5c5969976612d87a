// See weight_quantizer.h. The range search is in range_search.cc.
#include "quant/weight_quantizer.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>

#include "base/error.h"
#include "quant/device_neutral_formats.h"

namespace tern::quant {
namespace {

constexpr int64_t kRowGrain = 16;  // Rows a thread takes at least

void CheckMatrix(const at::Tensor& w_NK) {
  TERN_CHECK(w_NK.dim() == 2 && w_NK.scalar_type() == at::kFloat && w_NK.is_contiguous() &&
                 w_NK.device().is_cpu(),
             "w_NK is ", w_NK.scalar_type(), " ", w_NK.sizes(), " on ", w_NK.device(),
             "; want a contiguous fp32 CPU matrix");
}

// Calls body(row, first column, last column, s, zero) for each piece of a row that shares a scale.
template <class Body>
void ForEachPiece(int64_t n, int64_t k, const WeightFormat& format, const BlockScales& scales,
                  const Body& body) {
  const at::Tensor effective_RC = EffectiveScales(scales);
  const float* scale = effective_RC.const_data_ptr<float>();
  const float* zero = scales.zero_RC.defined() ? scales.zero_RC.const_data_ptr<float>() : nullptr;
  const int64_t rows = format.block_n == 0 ? n : format.block_n;
  const int64_t columns = format.block_k == 0 ? k : format.block_k;
  const int64_t c_count = scales.scale_RC.size(1);
  TERN_CHECK(scales.scale_RC.size(0) * rows >= n && c_count * columns >= k, "scales ",
             scales.scale_RC.sizes(), " for a matrix [", n, ", ", k, "]");
  at::parallel_for(0, n, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t c = 0; c < c_count; ++c) {
        const int64_t block = row / rows * c_count + c;
        body(row, c * columns, std::min((c + 1) * columns, k), scale[block],
             zero != nullptr ? zero[block] : 0.0f);
      }
    }
  });
}

}  // namespace

at::Tensor RoundScales(ScaleDtype dtype, const at::Tensor& scale_RC) {
  if (!scale_RC.device().is_cpu()) return neutral::RoundScales(dtype, scale_RC);
  at::Tensor rounded_RC = at::empty_like(scale_RC);
  const float* scale = scale_RC.const_data_ptr<float>();
  float* rounded = rounded_RC.mutable_data_ptr<float>();
  std::transform(scale, scale + scale_RC.numel(), rounded,
                 [&](float each) { return RoundScale(dtype, each); });
  return rounded_RC;
}

at::Tensor EffectiveScales(const BlockScales& scales) {
  return scales.global == 1 ? scales.scale_RC : scales.scale_RC / scales.global;
}

QuantizedWeight QuantizeWith(const at::Tensor& w_NK, const WeightFormat& format,
                             const BlockScales& scales) {
  CheckMatrix(w_NK);
  const int64_t n = w_NK.size(0), k = w_NK.size(1);
  const Grid grid = format.grid();
  QuantizedWeight out{format, at::empty({n, k}, grid.integer ? at::kChar : at::kByte), scales};
  const float* w = w_NK.const_data_ptr<float>();
  auto* codes = static_cast<uint8_t*>(out.codes_NK.mutable_data_ptr());
  ForEachPiece(
      n, k, format, scales, [&](int64_t row, int64_t begin, int64_t end, float s, float zero) {
        const float* x = w + row * k;
        uint8_t* q = codes + row * k;
        if (grid.integer) {
          for (int64_t i = begin; i < end; ++i)
            q[i] = static_cast<uint8_t>(static_cast<int32_t>(RoundToGrid(grid, x[i] / s + zero)));
        } else {
          for (int64_t i = begin; i < end; ++i) q[i] = FloatBits(grid, RoundToGrid(grid, x[i] / s));
        }
      });
  return out;
}

QuantizedWeight Quantize(const at::Tensor& w_NK, const WeightFormat& format,
                         const RangeSearch& range, const at::Tensor& importance_K) {
  return QuantizeWith(w_NK, format, FindScales(w_NK, format, range, importance_K));
}

at::Tensor Dequantize(const QuantizedWeight& w) {
  const int64_t n = w.codes_NK.size(0), k = w.codes_NK.size(1);
  const Grid grid = w.format.grid();
  float values[256];  // Of all codes
  for (int code = 0; code < 256; ++code) {
    values[code] = grid.integer ? static_cast<float>(static_cast<int8_t>(code))
                                : FloatOfBits(grid, static_cast<uint8_t>(code));
  }
  at::Tensor out_NK = at::empty({n, k}, at::kFloat);
  float* out = out_NK.mutable_data_ptr<float>();
  const auto* codes = static_cast<const uint8_t*>(w.codes_NK.const_data_ptr());
  ForEachPiece(n, k, w.format, w.scales,
               [&](int64_t row, int64_t begin, int64_t end, float s, float zero) {
                 for (int64_t i = row * k + begin; i < row * k + end; ++i)
                   out[i] = (values[codes[i]] - zero) * s;
               });
  return out_NK;
}

namespace {

// `round`(w / s + zero, index of the element) gives the grid's value.
template <class Round>
at::Tensor RoundWith(const at::Tensor& w_NK, const WeightFormat& format, const BlockScales& scales,
                     at::Tensor* inside_NK, const Round& round) {
  CheckMatrix(w_NK);
  const int64_t n = w_NK.size(0), k = w_NK.size(1);
  const Grid grid = format.grid();
  at::Tensor out_NK = at::empty({n, k}, at::kFloat);
  const float* w = w_NK.const_data_ptr<float>();
  float* out = out_NK.mutable_data_ptr<float>();
  bool* inside = nullptr;
  if (inside_NK != nullptr) {
    *inside_NK = at::empty({n, k}, at::kBool);
    inside = inside_NK->mutable_data_ptr<bool>();
  }
  ForEachPiece(n, k, format, scales,
               [&](int64_t row, int64_t begin, int64_t end, float s, float zero) {
                 for (int64_t i = row * k + begin; i < row * k + end; ++i)
                   out[i] = (round(grid, w[i] / s + zero, i) - zero) * s;
                 if (inside == nullptr) return;
                 for (int64_t i = row * k + begin; i < row * k + end; ++i) {
                   const float x = w[i] / s + zero;
                   inside[i] = x >= grid.lo - 0.5f && x <= grid.hi + 0.5f;
                 }
               });
  return out_NK;
}

}  // namespace

at::Tensor FakeQuantizeWith(const at::Tensor& w_NK, const WeightFormat& format,
                            const BlockScales& scales, at::Tensor* inside_NK) {
  if (!w_NK.device().is_cpu())
    return neutral::FakeQuantizeWith(w_NK, format, scales, /*noise=*/nullptr, inside_NK);
  return RoundWith(w_NK, format, scales, inside_NK,
                   [](const Grid& grid, float x, int64_t) { return RoundToGrid(grid, x); });
}

at::Tensor FakeQuantizeStochastic(const at::Tensor& w_NK, const WeightFormat& format,
                                  const Noise& noise, const RangeSearch& range,
                                  at::Tensor* inside_NK) {
  const BlockScales scales = FindScales(w_NK, format, range);
  if (!w_NK.device().is_cpu())
    return neutral::FakeQuantizeWith(w_NK, format, scales, &noise, inside_NK);
  return RoundWith(w_NK, format, scales, inside_NK, [&](const Grid& grid, float x, int64_t i) {
    return RoundStochastic(grid, x, noise.At(i));
  });
}

at::Tensor FakeQuantize(const at::Tensor& w_NK, const WeightFormat& format,
                        const RangeSearch& range, at::Tensor* inside_NK) {
  return FakeQuantizeWith(w_NK, format, FindScales(w_NK, format, range), inside_NK);
}

}  // namespace tern::quant
