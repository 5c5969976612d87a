// See int4_rows.h.
#include "quant/int4_rows.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "kernels/ternary_pack/t2.h"
#include "quant/device_neutral_formats.h"
#include "quant/grid.h"

namespace tern::quant {
namespace {

constexpr int64_t kRowGrain = 16;  // Rows a thread takes at least

float ScaleOf(const float* x, int64_t k, Int4Scale scale) {
  if (scale == Int4Scale::kAbsmax) {
    float most = 0;
    for (int64_t i = 0; i < k; ++i) {
      const float size = std::fabs(x[i]);
      if (!(size <= most)) most = size;   // NaN too,
      if (std::isnan(most)) return most;  // which stays
    }
    return std::max(most, kInt4ScaleFloor) / kInt4Top;
  }
  double sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += std::fabs(double{x[i]});
  // In this order NaN stays.
  return std::max(static_cast<float>(sum / static_cast<double>(k)), kInt4ScaleFloor) / kSqrtInt4Top;
}

}  // namespace

Int8Rows QuantizeRowsInt4(const at::Tensor& x_MK, Int4Scale scale) {
  TERN_CHECK(x_MK.dim() == 2 && x_MK.scalar_type() == at::kFloat && x_MK.is_contiguous(),
             "x_MK is ", x_MK.scalar_type(), " ", x_MK.sizes());
  if (!x_MK.device().is_cpu()) return neutral::QuantizeRowsInt4(x_MK, scale);
  const int64_t m = x_MK.size(0), k = x_MK.size(1), padded = kernels::T2PaddedK(k);
  Int8Rows out{at::zeros({m, padded}, at::kChar), at::empty({m}, at::kFloat),
               at::empty({m}, at::kInt), k, static_cast<int>(kInt4Top)};
  const float* x = x_MK.const_data_ptr<float>();
  int8_t* q = out.q_MK.mutable_data_ptr<int8_t>();
  float* gamma = out.gamma_M.mutable_data_ptr<float>();
  int32_t* sums = out.sum_M.mutable_data_ptr<int32_t>();
  at::parallel_for(0, m, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float s = ScaleOf(x + row * k, k, scale);
      int32_t sum = 0;
      gamma[row] = 127.0f * s;
      sums[row] = 0;
      if (!std::isfinite(gamma[row])) {  // Codes of such a row mean nothing: its outputs are NaN
        gamma[row] = std::numeric_limits<float>::quiet_NaN();
        continue;
      }
      for (int64_t i = 0; i < k; ++i) {
        const float code =
            RoundHalfEven(std::min(std::max(x[row * k + i] / s, kInt4Least), kInt4Top));
        q[row * padded + i] = static_cast<int8_t>(code);
        sum += static_cast<int32_t>(code);
      }
      sums[row] = sum;
    }
  });
  return out;
}

}  // namespace tern::quant
