// Encoders of k_blocks.h, byte-equal to ggml's quantizers: a scale, and in some types an offset,
// for each sub-block by block_search.h; these rounded to small integers times one d (and dmin); the
// rest in k_packing.cc. Without an importance of the columns, weights count by their size (the
// reference quantizers); with one, by importance * sqrt(2 mean(x^2) + x^2), and the integers of the
// scales are searched, too.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "formats/block_search.h"
#include "formats/k_blocks.h"
#include "formats/k_packing.h"

namespace tern::formats {
namespace {

constexpr MinSearch kSearch2{3, -0.5f, 0.1f, 15, true}, kSearch4{15, -1.0f, 0.1f, 20, false},
    kSearch5{31, -0.5f, 0.1f, 15, false};

float MeanSquare(const float* x, int64_t count) {
  float sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += x[i] * x[i];
  return sum / static_cast<float>(count);
}

// weights[count] of one sub-block. `power`: of the whole block, in the rule of its type.
void Weigh(const float* x, const float* importance, int64_t count, float power, float* weights) {
  for (int64_t i = 0; i < count; ++i) weights[i] = importance[i] * std::sqrt(power + x[i] * x[i]);
}

// Scales and offsets of the sub-blocks of one block, before they become integers.
struct Found {
  float scale[16] = {}, min[16] = {}, weight[16] = {};
};

int Rounded(float value, float largest, int steps) {
  return largest > 0 ? RoundToInt(static_cast<float>(steps) / largest * value) : 0;
}

// The largest is `steps`, the others are rounded.
float ToIntegers(const float* values, int count, int steps, uint8_t* out) {
  const float largest = std::max(0.0f, *std::max_element(values, values + count));
  for (int j = 0; j < count; ++j)
    out[j] = static_cast<uint8_t>(std::min(steps, Rounded(values[j], largest, steps)));
  return largest / static_cast<float>(steps);
}

SubBlocks ToSubBlocks(const Found& found, int count, int steps, bool weighted) {
  SubBlocks sub;
  if (weighted) {
    sub.d = SearchPositive(found.scale, found.weight, count, steps, sub.scale);
    sub.dmin = SearchPositive(found.min, found.weight, count, steps, sub.min);
  } else {
    sub.d = ToIntegers(found.scale, count, steps, sub.scale);
    sub.dmin = ToIntegers(found.min, count, steps, sub.min);
  }
  return sub;
}

// Q2_K, Q4_K, Q5_K: sub-blocks of `size` with offsets. `factor`: of the mean square in the weights.
SubBlocks FindWithMin(const float* x, const float* importance, int size, int steps, float factor,
                      const MinSearch& search, uint8_t* codes) {
  const int count = static_cast<int>(kKWeights) / size;
  const float power = importance != nullptr ? factor * MeanSquare(x, kKWeights) : 0;
  Found found;
  for (int j = 0; j < count; ++j) {
    const float* sub = x + size * j;
    float weights[kMaxSubBlock];
    MinSearch used = search;
    if (importance != nullptr) {
      Weigh(sub, importance + size * j, size, power, weights);
      for (int l = 0; l < size; ++l) found.weight[j] += weights[l];
      used = {search.nmax, -0.9f, 0.05f, 36, false};
    } else {
      const float mean = size == 32 ? std::sqrt(MeanSquare(sub, size)) : 0.0f;
      for (int l = 0; l < size; ++l) weights[l] = mean + std::fabs(sub[l]);
    }
    const ScaleAndMin s = SearchWithMin(sub, weights, size, used, codes + size * j);
    found.scale[j] = s.scale;
    found.min[j] = s.min;
  }
  return ToSubBlocks(found, count, steps, importance != nullptr);
}

using Encode = void (*)(const float* x, const float* importance, uint8_t* out);

// Block by block; importance may be null.
void EncodeBlocks(const float* x, const float* importance, int64_t k, int64_t block_bytes,
                  Encode encode, uint8_t* out) {
  for (int64_t at = 0; at < k; at += kKWeights, out += block_bytes) {
    CheckedAmax(x + at, kKWeights, 1.0f);
    encode(x + at, importance != nullptr ? importance + at : nullptr, out);
  }
}

void Block2(const float* x, const float* importance, uint8_t* out) {
  uint8_t codes[kKWeights];
  FinishQ2K(x, FindWithMin(x, importance, 16, 15, 1, kSearch2, codes), codes, out);
}

void Block3(const float* x, const float* importance, uint8_t* out) {
  uint8_t codes[kKWeights];
  float scales[16], weight[16] = {}, largest = 0;
  const float power = importance != nullptr ? 2 * MeanSquare(x, kKWeights) : 0;
  for (int j = 0; j < 16; ++j) {
    if (importance != nullptr) {
      float weights[16];
      Weigh(x + 16 * j, importance + 16 * j, 16, power, weights);
      for (const float w : weights) weight[j] += w;
      scales[j] = SearchSymmetric(x + 16 * j, weights, 16, 4, codes + 16 * j);
    } else {
      scales[j] = SearchRounds(x + 16 * j, 16, 4, codes + 16 * j);
    }
    if (std::fabs(scales[j]) > std::fabs(largest)) largest = scales[j];
  }
  SubBlocks sub;
  if (importance != nullptr) {
    sub.d = SearchSymmetric(scales, weight, 16, 32, sub.scale);
  } else if (largest != 0) {
    const float inverse = -32.0f / largest;
    sub.d = 1 / inverse;
    for (int j = 0; j < 16; ++j)
      sub.scale[j] =
          static_cast<uint8_t>(std::clamp(RoundToInt(inverse * scales[j]), -32, 31) + 32);
  }
  FinishQ3K(x, sub, codes, out);
}

void Block4(const float* x, const float* importance, uint8_t* out) {
  uint8_t codes[kKWeights];
  FinishQ4K(x, FindWithMin(x, importance, 32, 63, 2, kSearch4, codes), codes, out);
}

void Block5(const float* x, const float* importance, uint8_t* out) {
  uint8_t codes[kKWeights];
  FinishQ5K(x, FindWithMin(x, importance, 32, 63, 2, kSearch5, codes), codes, out);
}

void Block6(const float* x, const float* importance, uint8_t* out) {
  uint8_t codes[kKWeights];
  float scales[16], largest = 0;
  for (int j = 0; j < 16; ++j) {
    const float* weights = importance != nullptr ? importance + 16 * j : nullptr;
    scales[j] = SearchSymmetric(x + 16 * j, weights, 16, 32, codes + 16 * j);
    if (std::fabs(scales[j]) > std::fabs(largest)) largest = scales[j];
  }
  constexpr float kLeast = 1e-15f;  // A block below is all zeros, codes too.
  if (std::fabs(largest) < kLeast) {
    std::memset(out, 0, kQ6KBytes);
    return;
  }
  SubBlocks sub;
  const float inverse = -128.0f / largest;
  sub.d = 1 / inverse;
  for (int j = 0; j < 16; ++j) {
    sub.scale[j] =
        static_cast<uint8_t>(static_cast<int8_t>(std::min(127, RoundToInt(inverse * scales[j]))));
  }
  FinishQ6K(x, sub, codes, out);
}

}  // namespace

void EncodeQ2K(const float* x, const float* importance, int64_t k, uint8_t* out) {
  EncodeBlocks(x, importance, k, kQ2KBytes, Block2, out);
}
void EncodeQ3K(const float* x, const float* importance, int64_t k, uint8_t* out) {
  EncodeBlocks(x, importance, k, kQ3KBytes, Block3, out);
}
void EncodeQ4K(const float* x, const float* importance, int64_t k, uint8_t* out) {
  EncodeBlocks(x, importance, k, kQ4KBytes, Block4, out);
}
void EncodeQ5K(const float* x, const float* importance, int64_t k, uint8_t* out) {
  EncodeBlocks(x, importance, k, kQ5KBytes, Block5, out);
}
void EncodeQ6K(const float* x, const float* importance, int64_t k, uint8_t* out) {
  EncodeBlocks(x, importance, k, kQ6KBytes, Block6, out);
}

}  // namespace tern::formats
