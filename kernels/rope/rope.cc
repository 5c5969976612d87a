// The table of angles, and the rotation cut for the threads by rows.
#include "kernels/rope/rope.h"

#include <cmath>

#include "kernels/common/versions.h"
#include "kernels/rope/rope_impl.h"

namespace tern::kernels {
namespace {

constexpr int64_t kGrainElements =
    32768;  // Work below which waking a thread costs more than it saves.

}  // namespace

void RopeRow(float* x, int64_t heads, int64_t half, const float* cosine, const float* sine,
             float sign) {
  return TERN_ACTIVE(RopeRow)(x, heads, half, cosine, sine, sign);
}

void RopeTable(int64_t context, int64_t head_width, double theta, std::span<const double> factors,
               float* cos_table, float* sin_table) {
  const int64_t half = head_width / 2;
  for (int64_t i = 0; i < half; ++i) {
    const double frequency =
        std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_width)) /
        (factors.empty() ? 1.0 : factors[static_cast<size_t>(i)]);
    for (int64_t position = 0; position < context; ++position) {
      const double angle = static_cast<double>(position) * frequency;
      cos_table[position * half + i] = static_cast<float>(std::cos(angle));
      sin_table[position * half + i] = static_cast<float>(std::sin(angle));
    }
  }
}

void Rope(float* x, int64_t rows, int64_t heads, int64_t head_width, int64_t ldx,
          const int32_t* positions, const float* cos_table, const float* sin_table,
          RopeDirection direction, const ParallelFor& parallel) {
  const int64_t half = head_width / 2, row_elements = heads * head_width;
  if (rows == 0 || row_elements == 0) return;
  const float sign = direction == RopeDirection::kForward ? 1.0f : -1.0f;
  parallel(rows, kGrainElements / row_elements + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t offset = positions[row] * half;
      RopeRow(x + row * ldx, heads, half, cos_table + offset, sin_table + offset, sign);
    }
  });
}

}  // namespace tern::kernels
