// See k_blocks.h. Each decoder walks the sub-blocks in the order of the weights and computes where
// their bits are; all bytes of a sub-block have them at one place.
#include "formats/k_blocks.h"

#include "formats/half.h"

namespace tern::formats {
namespace {

constexpr int64_t kSmall = 16, kLarge = 32;  // Weights of a sub-block

// The 12 bytes of Q4_K and Q5_K: eight scales and eight minima of 6 bits. Those of the first four
// sub-blocks are the low bits of bytes 0-3 and 4-7; of the others the low four bits are the halves
// of bytes 8-11 and the high two are what bytes 0-7 have left.
struct ScaleAndMin {
  int scale, min;
};
ScaleAndMin SixBits(const uint8_t* packed, int64_t sub_block) {
  const int64_t j = sub_block % 4;
  if (sub_block < 4) return {packed[j] & 63, packed[j + 4] & 63};
  return {(packed[j + 8] & 15) | packed[j] >> 6 << 4, packed[j + 8] >> 4 | packed[j + 4] >> 6 << 4};
}

// The 12 bytes of Q3_K: sixteen scales of 6 bits, stored as scale + 32. The low four bits are the
// low halves of bytes 0-7, then the high halves; the high two are in bytes 8-11, by fours.
int Q3KScale(const uint8_t* packed, int64_t sub_block) {
  const int low = sub_block < 8 ? packed[sub_block] & 15 : packed[sub_block - 8] >> 4;
  const int high = packed[8 + sub_block % 4] >> (2 * (sub_block / 4)) & 3;
  return (low | high << 4) - 32;
}

// Two-bit codes of Q2_K and Q3_K: 32 bytes hold 128 weights, byte l the weights l + 32 j at bits
// 2 j. Of a sub-block of 16: its first byte and its shift.
const uint8_t* TwoBitBytes(const uint8_t* qs, int64_t sub_block) {
  return qs + sub_block / 8 * kLarge + sub_block % 2 * kSmall;
}
int TwoBitShift(int64_t sub_block) { return static_cast<int>(sub_block % 8 / 2 * 2); }

}  // namespace

void DecodeQ2K(const uint8_t* row, int64_t k, float* out) {
  for (; k > 0; k -= kKWeights, row += kQ2KBytes) {
    const float d = LoadFp16(row + kQ2KScaleOffset), dmin = LoadFp16(row + kQ2KScaleOffset + 2);
    const uint8_t* qs = row + 16;
    for (int64_t s = 0; s < kKWeights / kSmall; ++s, out += kSmall) {
      const float scale = d * static_cast<float>(row[s] & 15),
                  min = dmin * static_cast<float>(row[s] >> 4);
      const uint8_t* bytes = TwoBitBytes(qs, s);
      const int shift = TwoBitShift(s);
      for (int64_t i = 0; i < kSmall; ++i)
        out[i] = scale * static_cast<float>(bytes[i] >> shift & 3) - min;
    }
  }
}

void DecodeQ3K(const uint8_t* row, int64_t k, float* out) {
  for (; k > 0; k -= kKWeights, row += kQ3KBytes) {
    const uint8_t *high_bits = row, *qs = row + 32, *scales = row + 96;
    const float d = LoadFp16(row + kQ3KScaleOffset);
    for (int64_t s = 0; s < kKWeights / kSmall; ++s, out += kSmall) {
      const float scale = d * static_cast<float>(Q3KScale(scales, s));
      const uint8_t *bytes = TwoBitBytes(qs, s), *highs = high_bits + s % 2 * kSmall;
      const int shift = TwoBitShift(s), high_shift = static_cast<int>(s / 2);
      for (int64_t i = 0; i < kSmall; ++i) {
        const int code = (bytes[i] >> shift & 3) | (highs[i] >> high_shift & 1) << 2;
        out[i] = scale * static_cast<float>(code - 4);  // A high bit that is set takes no 4 away
      }
    }
  }
}

void DecodeQ4K(const uint8_t* row, int64_t k, float* out) {
  for (; k > 0; k -= kKWeights, row += kQ4KBytes) {
    const float d = LoadFp16(row), dmin = LoadFp16(row + 2);
    for (int64_t s = 0; s < kKWeights / kLarge; ++s, out += kLarge) {
      const ScaleAndMin six = SixBits(row + 4, s);
      const float scale = d * static_cast<float>(six.scale),
                  min = dmin * static_cast<float>(six.min);
      const uint8_t* bytes = row + 16 + s / 2 * kLarge;
      const int shift = static_cast<int>(s % 2 * 4);
      for (int64_t i = 0; i < kLarge; ++i)
        out[i] = scale * static_cast<float>(bytes[i] >> shift & 15) - min;
    }
  }
}

void DecodeQ5K(const uint8_t* row, int64_t k, float* out) {
  for (; k > 0; k -= kKWeights, row += kQ5KBytes) {
    const float d = LoadFp16(row), dmin = LoadFp16(row + 2);
    const uint8_t* fifth_bits = row + 16;
    for (int64_t s = 0; s < kKWeights / kLarge; ++s, out += kLarge) {
      const ScaleAndMin six = SixBits(row + 4, s);
      const float scale = d * static_cast<float>(six.scale),
                  min = dmin * static_cast<float>(six.min);
      const uint8_t* bytes = row + 48 + s / 2 * kLarge;
      const int shift = static_cast<int>(s % 2 * 4), fifth_shift = static_cast<int>(s);
      for (int64_t i = 0; i < kLarge; ++i) {
        const int code = (bytes[i] >> shift & 15) | (fifth_bits[i] >> fifth_shift & 1) << 4;
        out[i] = scale * static_cast<float>(code) - min;
      }
    }
  }
}

// 64 bytes of low halves and 32 of high pairs hold 128 weights. Of group g of 32 in these 128: the
// low four bits are in the bytes of part g % 2, in their high half from group 2 on; the high two
// are at bits 2 g of all 32 bytes. The scales are of 16 weights.
void DecodeQ6K(const uint8_t* row, int64_t k, float* out) {
  for (; k > 0; k -= kKWeights, row += kQ6KBytes) {
    const uint8_t *lows = row, *highs = row + 128, *scales = row + 192;
    const float d = LoadFp16(row + kQ6KScaleOffset);
    for (int64_t s = 0; s < kKWeights / kSmall; ++s, out += kSmall) {
      const int64_t half = s / 8, g = s % 8 / 2, begin = s % 2 * kSmall;
      const float scale = d * static_cast<float>(static_cast<int8_t>(scales[s]));
      const uint8_t *low = lows + half * 64 + g % 2 * kLarge + begin,
                    *high = highs + half * kLarge + begin;
      const int low_shift = static_cast<int>(g / 2 * 4), high_shift = static_cast<int>(2 * g);
      for (int64_t i = 0; i < kSmall; ++i) {
        const int code = (low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4;
        out[i] = scale * static_cast<float>(code - 32);
      }
    }
  }
}

}  // namespace tern::formats
