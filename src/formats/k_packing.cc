// See k_packing.h; layouts: docs/formats/block_codecs.md.
#include "formats/k_packing.h"

#include <algorithm>
#include <cstring>

#include "formats/block_search.h"
#include "formats/half.h"
#include "formats/k_blocks.h"

namespace tern::formats {
namespace {

constexpr int64_t kHalf = kKWeights / 2;

float StoreHalf(uint8_t* p, float value) {
  const uint16_t bits = Fp32ToFp16(value);
  std::memcpy(p, &bits, sizeof bits);
  return Fp16ToFp32(bits);
}

// Codes of a sub-block with the scale d and the offset dm of the file.
void CodesOf(const float* x, int64_t count, float d, float dm, int lo, int hi, uint8_t* codes) {
  if (d == 0) return;
  for (int64_t i = 0; i < count; ++i)
    codes[i] = static_cast<uint8_t>(std::clamp(RoundToInt((x[i] + dm) / d), lo, hi) - lo);
}

// Two bits of each of the 256 codes: byte l of a half holds those of l, l + 32, l + 64 and l + 96.
void PackPairs(const uint8_t* codes, int shift, uint8_t* out) {
  for (int64_t half = 0; half < kKWeights; half += kHalf) {
    for (int64_t l = 0; l < 32; ++l) {
      int byte = 0;
      for (int part = 0; part < 4; ++part)
        byte |= (codes[half + l + 32 * part] >> shift & 3) << (2 * part);
      out[half / 4 + l] = static_cast<uint8_t>(byte);
    }
  }
}

// Bit `shift` of code i is bit i / 32 of byte i % 32.
void PackBit(const uint8_t* codes, int shift, uint8_t* out) {
  std::memset(out, 0, 32);
  for (int64_t i = 0; i < kKWeights; ++i)
    out[i % 32] = static_cast<uint8_t>(out[i % 32] | (codes[i] >> shift & 1) << (i / 32));
}

// Low four bits, 64 codes a time: byte l holds those of l and, above, of l + 32.
void PackNibbles(const uint8_t* codes, uint8_t* out) {
  for (int64_t j = 0; j < kKWeights; j += 64)
    for (int64_t l = 0; l < 32; ++l)
      *out++ = static_cast<uint8_t>((codes[j + l] & 15) | (codes[j + l + 32] & 15) << 4);
}

// Q4_K and Q5_K: d, dmin, eight 6-bit scales and offsets in 12 bytes; and the codes.
void FinishSixBits(const float* x, const SubBlocks& s, int largest, uint8_t* codes, uint8_t* out) {
  const float d = StoreHalf(out, s.d), dmin = StoreHalf(out + 2, s.dmin);
  uint8_t* packed = out + 4;
  for (int j = 0; j < 4; ++j) {
    packed[j] = static_cast<uint8_t>(s.scale[j] | s.scale[j + 4] >> 4 << 6);
    packed[j + 4] = static_cast<uint8_t>(s.min[j] | s.min[j + 4] >> 4 << 6);
    packed[j + 8] = static_cast<uint8_t>((s.scale[j + 4] & 15) | (s.min[j + 4] & 15) << 4);
  }
  for (int j = 0; j < 8; ++j) {
    CodesOf(x + 32 * j, 32, d * static_cast<float>(s.scale[j]), dmin * static_cast<float>(s.min[j]),
            0, largest, codes + 32 * j);
  }
}

}  // namespace

void FinishQ2K(const float* x, const SubBlocks& s, uint8_t* codes, uint8_t* out) {
  const float d = StoreHalf(out + kQ2KScaleOffset, s.d),
              dmin = StoreHalf(out + kQ2KScaleOffset + 2, s.dmin);
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<uint8_t>(s.scale[j] | s.min[j] << 4);
    CodesOf(x + 16 * j, 16, d * static_cast<float>(s.scale[j]), dmin * static_cast<float>(s.min[j]),
            0, 3, codes + 16 * j);
  }
  PackPairs(codes, 0, out + 16);
}

void FinishQ3K(const float* x, const SubBlocks& s, uint8_t* codes, uint8_t* out) {
  const float d = StoreHalf(out + kQ3KScaleOffset, s.d);
  uint8_t* packed = out + 96;
  std::memset(packed, 0, 12);
  for (int j = 0; j < 16; ++j) {
    packed[j % 8] = static_cast<uint8_t>(packed[j % 8] | (s.scale[j] & 15) << (j < 8 ? 0 : 4));
    packed[8 + j % 4] = static_cast<uint8_t>(packed[8 + j % 4] | s.scale[j] >> 4 << (2 * (j / 4)));
    CodesOf(x + 16 * j, 16, d * static_cast<float>(s.scale[j] - 32), 0, -4, 3, codes + 16 * j);
  }
  PackBit(codes, 2, out);
  PackPairs(codes, 0, out + 32);
}

void FinishQ4K(const float* x, const SubBlocks& s, uint8_t* codes, uint8_t* out) {
  FinishSixBits(x, s, 15, codes, out);
  PackNibbles(codes, out + 16);
}

void FinishQ5K(const float* x, const SubBlocks& s, uint8_t* codes, uint8_t* out) {
  FinishSixBits(x, s, 31, codes, out);
  PackBit(codes, 4, out + 16);
  PackNibbles(codes, out + 48);
}

void FinishQ6K(const float* x, const SubBlocks& s, uint8_t* codes, uint8_t* out) {
  const float d = StoreHalf(out + kQ6KScaleOffset, s.d);
  for (int j = 0; j < 16; ++j) {
    out[192 + j] = s.scale[j];
    CodesOf(x + 16 * j, 16, d * static_cast<float>(static_cast<int8_t>(s.scale[j])), 0, -32, 31,
            codes + 16 * j);
  }
  for (int64_t half = 0; half < kKWeights; half += kHalf) {
    for (int64_t l = 0; l < 64; ++l) {
      out[half / 2 + l] =
          static_cast<uint8_t>((codes[half + l] & 15) | (codes[half + l + 64] & 15) << 4);
    }
  }
  PackPairs(codes, 4, out + 128);
}

}  // namespace tern::formats
