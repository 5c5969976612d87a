// Encoders of legacy_blocks.h, byte-equal to ggml's reference quantizers: the scale of a symmetric
// block is the weight of largest magnitude, with its sign, over -8 or -16, so that this weight is
// exact; codes are rounded half up. With an importance of the columns the scale is searched
// (block_search.h), weights counting by importance * sqrt(mean(x^2 of the row) + x^2).
#include <algorithm>
#include <cmath>
#include <cstring>

#include "formats/block_search.h"
#include "formats/half.h"
#include "formats/legacy_blocks.h"

namespace tern::formats {
namespace {

constexpr int64_t kHalf = kLegacyWeights / 2;

void Store16(uint8_t* p, uint16_t value) { std::memcpy(p, &value, sizeof value); }

void PackNibbles(const uint8_t* codes, uint8_t* out) {
  for (int64_t i = 0; i < kHalf; ++i)
    out[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[i + kHalf] & 15) << 4);
}

void PackFifthBits(const uint8_t* codes, uint8_t* out) {
  uint32_t bits = 0;
  for (int64_t i = 0; i < kLegacyWeights; ++i) bits |= uint32_t{codes[i]} >> 4 << i;
  for (int byte = 0; byte < 4; ++byte) out[byte] = static_cast<uint8_t>(bits >> (8 * byte));
}

float Inverse(float d) { return d != 0 ? 1.0f / d : 0.0f; }

// Codes 0 .. 2 zero - 1 of d (q - zero). Returns d.
float SymmetricOf(const float* x, int zero, uint8_t* codes) {
  float amax = CheckedAmax(x, kLegacyWeights, static_cast<float>(zero)), extreme = 0;
  for (int64_t i = kLegacyWeights - 1; i >= 0; --i)
    if (std::fabs(x[i]) == amax) extreme = x[i];  // The first of several
  const float d = extreme / static_cast<float>(-zero), inverse = Inverse(d);
  for (int64_t i = 0; i < kLegacyWeights; ++i) {
    const auto code = static_cast<int8_t>(x[i] * inverse + (static_cast<float>(zero) + 0.5f));
    codes[i] = static_cast<uint8_t>(std::min<int>(2 * zero - 1, code));
  }
  return d;
}

struct Affine {
  float d, min;
};
Affine WithMinOf(const float* x, int largest, uint8_t* codes) {
  CheckedAmax(x, kLegacyWeights, 1.0f);
  const float min = *std::min_element(x, x + kLegacyWeights),
              max = *std::max_element(x, x + kLegacyWeights);
  const float d = (max - min) / static_cast<float>(largest), inverse = Inverse(d);
  for (int64_t i = 0; i < kLegacyWeights; ++i) {
    const auto code = static_cast<int>((x[i] - min) * inverse + 0.5f);
    codes[i] = static_cast<uint8_t>(std::min(largest, code));
  }
  return {d, min};
}

// The rows' searches with an importance.
class Weighted {
 public:
  Weighted(const float* x, const float* importance, int64_t k) : importance_(importance) {
    if (importance_ == nullptr) return;
    for (int64_t i = 0; i < k; ++i) power_ += x[i] * x[i];
    power_ /= static_cast<float>(k);
  }
  // Of the block at column `at`.
  const float* WeightsOf(const float* x, int64_t at) {
    for (int64_t i = 0; i < kLegacyWeights; ++i)
      weights_[i] = importance_[at + i] * std::sqrt(power_ + x[i] * x[i]);
    return weights_;
  }

  float Symmetric(const float* x, int64_t at, int zero, uint8_t* codes) {
    if (importance_ == nullptr) return SymmetricOf(x, zero, codes);
    CheckedAmax(x, kLegacyWeights, static_cast<float>(zero));
    return SearchSymmetric(x, WeightsOf(x, at), kLegacyWeights, zero, codes);
  }
  Affine WithMin(const float* x, int64_t at, int largest, uint8_t* codes) {
    if (importance_ == nullptr) return WithMinOf(x, largest, codes);
    CheckedAmax(x, kLegacyWeights, 1.0f);
    const ScaleAndMin found = SearchWithMin(x, WeightsOf(x, at), kLegacyWeights,
                                            {largest, -0.9f, 0.05f, 36, false}, codes);
    return {found.scale, -found.min};
  }

 private:
  const float* importance_;
  float power_ = 0, weights_[kLegacyWeights];
};

}  // namespace

void PackQ4_0(const int8_t* codes, uint16_t d, uint8_t* block) {
  uint8_t shifted[kLegacyWeights];
  for (int64_t i = 0; i < kLegacyWeights; ++i) shifted[i] = static_cast<uint8_t>(codes[i] + 8);
  Store16(block, d);
  PackNibbles(shifted, block + 2);
}

void EncodeQ4_0(const float* x, const float* importance, int64_t k, uint8_t* out) {
  uint8_t codes[kLegacyWeights];
  Weighted row(x, importance, k);
  for (int64_t at = 0; at < k; at += kLegacyWeights, x += kLegacyWeights, out += kQ4_0Bytes) {
    Store16(out, Fp32ToFp16(row.Symmetric(x, at, 8, codes)));
    PackNibbles(codes, out + 2);
  }
}

void EncodeQ4_1(const float* x, const float* importance, int64_t k, uint8_t* out) {
  uint8_t codes[kLegacyWeights];
  Weighted row(x, importance, k);
  for (int64_t at = 0; at < k; at += kLegacyWeights, x += kLegacyWeights, out += kQ4_1Bytes) {
    const Affine a = row.WithMin(x, at, 15, codes);
    Store16(out, Fp32ToFp16(a.d));
    Store16(out + 2, Fp32ToFp16(a.min));
    PackNibbles(codes, out + 4);
  }
}

void EncodeQ5_0(const float* x, const float* importance, int64_t k, uint8_t* out) {
  uint8_t codes[kLegacyWeights];
  Weighted row(x, importance, k);
  for (int64_t at = 0; at < k; at += kLegacyWeights, x += kLegacyWeights, out += kQ5_0Bytes) {
    Store16(out, Fp32ToFp16(row.Symmetric(x, at, 16, codes)));
    PackFifthBits(codes, out + 2);
    PackNibbles(codes, out + 6);
  }
}

void EncodeQ5_1(const float* x, const float* importance, int64_t k, uint8_t* out) {
  uint8_t codes[kLegacyWeights];
  Weighted row(x, importance, k);
  for (int64_t at = 0; at < k; at += kLegacyWeights, x += kLegacyWeights, out += kQ5_1Bytes) {
    const Affine a = row.WithMin(x, at, 31, codes);
    Store16(out, Fp32ToFp16(a.d));
    Store16(out + 2, Fp32ToFp16(a.min));
    PackFifthBits(codes, out + 4);
    PackNibbles(codes, out + 8);
  }
}

}  // namespace tern::formats
