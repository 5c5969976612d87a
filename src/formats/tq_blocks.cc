// See tq_blocks.h.
#include "formats/tq_blocks.h"

#include <cstring>

#include "formats/two_bit_codes.h"

namespace tern::formats {
namespace {

// Weights of byte b of a TQ1_0 part: first_weight + n * bytes + b for trit n. 160 weights are 5 x
// 32 in bytes 0..31, 80 are 5 x 16 in bytes 32..47, 16 are 4 x 4 in bytes 48..51 (fifth trit 0).
struct Tq1Part {
  int64_t first_byte, bytes, first_weight, trits;
};
constexpr Tq1Part kTq1Parts[] = {{0, 32, 0, 5}, {32, 16, 160, 5}, {48, 4, 240, 4}};
constexpr unsigned kPowersOfThree[] = {1, 3, 9, 27, 81};
constexpr unsigned kTritValues = 243;  // 3^5

// One trit of every byte at a time, from a copy, so that the compiler makes vectors of the loop.
template <size_t index>
void UnpackTq1Part(const uint8_t* block, int8_t* codes) {
  constexpr Tq1Part part = kTq1Parts[index];
  uint8_t bytes[part.bytes];
  std::memcpy(bytes, block + part.first_byte, sizeof bytes);
  for (int64_t n = 0; n < part.trits; ++n) {
    const auto power = static_cast<uint8_t>(kPowersOfThree[n]);
    int8_t* out = codes + part.first_weight + n * part.bytes;
    for (int64_t b = 0; b < part.bytes; ++b) {
      const auto fraction = static_cast<uint8_t>(bytes[b] * power);
      out[b] = static_cast<int8_t>((fraction * 3 >> 8) - 1);
    }
  }
}

// TQ2_0: two halves of 128 weights in 32 bytes.
constexpr int64_t kHalves = 2, kHalfWeights = 128, kHalfBytes = 32, kFields = 4;

}  // namespace

// Five trits t0..t4 (0, 1, 2; t0 is the highest digit) of v = sum t_n 3^(4-n) are stored as
// ceil(v * 256 / 243), a fixed-point fraction: multiplying by 3 moves the highest digit above the
// byte.
void PackTq1(const int8_t* codes, uint8_t* block) {
  for (const Tq1Part& part : kTq1Parts) {
    for (int64_t b = 0; b < part.bytes; ++b) {
      unsigned value = 0;
      for (int64_t n = 0; n < 5; ++n) {
        const int trit = n < part.trits ? codes[part.first_weight + n * part.bytes + b] + 1 : 0;
        value = value * 3 + static_cast<unsigned>(trit);
      }
      block[part.first_byte + b] =
          static_cast<uint8_t>((value * 256 + kTritValues - 1) / kTritValues);
    }
  }
}

void UnpackTq1(const uint8_t* block, int8_t* codes) {
  UnpackTq1Part<0>(block, codes);
  UnpackTq1Part<1>(block, codes);
  UnpackTq1Part<2>(block, codes);
}

// Byte m of a half holds weights m + 32 n at bits 2n, as code + 1.
void PackTq2(const int8_t* codes, uint8_t* block) {
  for (int64_t half = 0; half < kHalves; ++half) {
    for (int64_t m = 0; m < kHalfBytes; ++m) {
      unsigned byte = 0;
      for (int64_t n = 0; n < kFields; ++n) {
        const int code = codes[half * kHalfWeights + m + kHalfBytes * n] + 1;
        byte |= static_cast<unsigned>(code) << (2 * n);
      }
      block[half * kHalfBytes + m] = static_cast<uint8_t>(byte);
    }
  }
}

bool UnpackTq2(const uint8_t* block, int8_t* codes) {
  for (int64_t half = 0; half < kHalves; ++half) {
    for (int64_t n = 0; n < kFields; ++n) {
      for (int64_t m = 0; m < kHalfBytes; ++m) {
        const int code = block[half * kHalfBytes + m] >> (2 * n) & 3;
        codes[half * kHalfWeights + kHalfBytes * n + m] = static_cast<int8_t>(code - 1);
      }
    }
  }
  return !HoldsThree(block, kTq2ScaleOffset);
}

bool CopyTq2(const uint8_t* block, uint8_t* planes) {
  std::memcpy(planes, block, kTq2ScaleOffset);
  return !HoldsThree(block, kTq2ScaleOffset);
}

}  // namespace tern::formats
