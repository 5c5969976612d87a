// See legacy_blocks.h. Byte i of a block's 16 holds the low four bits of weight i and, above them,
// those of weight i + 16; the fifth bit of weight i is bit i of a 32-bit number before them.
#include "formats/legacy_blocks.h"

#include "formats/half.h"

namespace tern::formats {
namespace {

constexpr int64_t kHalf = kLegacyWeights / 2;

// The codes as they are stored: 0 to 15.
void UnpackNibbles(const uint8_t* bytes, int32_t* codes) {
  for (int64_t i = 0; i < kHalf; ++i) {
    codes[i] = bytes[i] & 15;
    codes[i + kHalf] = bytes[i] >> 4;
  }
}

void AddFifthBits(const uint8_t* bytes, int32_t* codes) {
  const uint32_t bits = uint32_t{bytes[0]} | uint32_t{bytes[1]} << 8 | uint32_t{bytes[2]} << 16 |
                        uint32_t{bytes[3]} << 24;
  for (int64_t i = 0; i < kLegacyWeights; ++i)
    codes[i] |= static_cast<int32_t>((bits >> i & 1u) << 4);
}

void Scale(const int32_t* codes, float d, int32_t zero, float* out) {
  for (int64_t i = 0; i < kLegacyWeights; ++i) out[i] = d * static_cast<float>(codes[i] - zero);
}
void ScaleAndShift(const int32_t* codes, float d, float m, float* out) {
  for (int64_t i = 0; i < kLegacyWeights; ++i) out[i] = d * static_cast<float>(codes[i]) + m;
}

}  // namespace

void DecodeQ4_0(const uint8_t* row, int64_t k, float* out) {
  int32_t codes[kLegacyWeights];
  for (; k > 0; k -= kLegacyWeights, row += kQ4_0Bytes, out += kLegacyWeights) {
    UnpackNibbles(row + 2, codes);
    Scale(codes, LoadFp16(row), 8, out);
  }
}

void DecodeQ4_1(const uint8_t* row, int64_t k, float* out) {
  int32_t codes[kLegacyWeights];
  for (; k > 0; k -= kLegacyWeights, row += kQ4_1Bytes, out += kLegacyWeights) {
    UnpackNibbles(row + 4, codes);
    ScaleAndShift(codes, LoadFp16(row), LoadFp16(row + 2), out);
  }
}

void DecodeQ5_0(const uint8_t* row, int64_t k, float* out) {
  int32_t codes[kLegacyWeights];
  for (; k > 0; k -= kLegacyWeights, row += kQ5_0Bytes, out += kLegacyWeights) {
    UnpackNibbles(row + 6, codes);
    AddFifthBits(row + 2, codes);
    Scale(codes, LoadFp16(row), 16, out);
  }
}

void DecodeQ5_1(const uint8_t* row, int64_t k, float* out) {
  int32_t codes[kLegacyWeights];
  for (; k > 0; k -= kLegacyWeights, row += kQ5_1Bytes, out += kLegacyWeights) {
    UnpackNibbles(row + 8, codes);
    AddFifthBits(row + 4, codes);
    ScaleAndShift(codes, LoadFp16(row), LoadFp16(row + 2), out);
  }
}

}  // namespace tern::formats
