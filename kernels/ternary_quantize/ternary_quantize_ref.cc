// Scalar oracle of the weight quantizer. The order of the sum is part of the definition of beta.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/ternary_pack/t2.h"
#include "kernels/ternary_pack/t2_impl.h"
#include "kernels/ternary_quantize/ternary_quantize_impl.h"

namespace tern::kernels {

void AbsBlockSumsRef(const float* w, int64_t count, int64_t block_begin, int64_t block_end,
                     float* sums) {
  for (int64_t block = block_begin; block < block_end; ++block) {
    const int64_t end = std::min((block + 1) * kAbsMeanBlock, count);
    float sum = 0.0f;
    for (int64_t i = block * kAbsMeanBlock; i < end; ++i) sum += std::fabs(w[i]);
    sums[block] = sum;
  }
}

float TernaryScaleRef(const float* w, int64_t count) {
  const int64_t blocks = (count + kAbsMeanBlock - 1) / kAbsMeanBlock;
  std::vector<float> sums(static_cast<size_t>(blocks));
  AbsBlockSumsRef(w, count, 0, blocks, sums.data());
  double total = 0.0;
  for (float sum : sums) total += static_cast<double>(sum);
  const float mean = count == 0 ? 0.0f : static_cast<float>(total / static_cast<double>(count));
  return mean < kScaleFloor ? kScaleFloor : mean;  // In this form NaN stays NaN.
}

TernaryCounts TernaryQuantizeRowsRef(const float* w, int64_t row_begin, int64_t row_end, int64_t k,
                                     float inv_scale, uint8_t* t2, const uint8_t* previous) {
  TernaryCounts counts;
  std::vector<int8_t> codes(static_cast<size_t>(k)), old(static_cast<size_t>(k));
  for (int64_t row = row_begin; row < row_end; ++row) {
    if (previous != nullptr) UnpackT2RowRef(previous + row * T2RowBytes(k), k, old.data());
    for (int64_t i = 0; i < k; ++i) {
      // NaN fails the first comparison and becomes 1, as in the SIMD versions; callers refuse it
      // beforehand.
      const float scaled = w[row * k + i] * inv_scale;
      const float upper = scaled < 1.0f ? scaled : 1.0f;
      const int code = static_cast<int>(std::nearbyint(upper > -1.0f ? upper : -1.0f));
      codes[static_cast<size_t>(i)] = static_cast<int8_t>(code);
      counts.zeros += code == 0;
      counts.flips += previous != nullptr && code != old[static_cast<size_t>(i)];
    }
    PackT2RowRef(codes.data(), k, t2 + row * T2RowBytes(k));
  }
  return counts;
}

}  // namespace tern::kernels
