// See block_codec.h.
#include "formats/block_codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "formats/half.h"

namespace tern::formats {
namespace {

constexpr GgmlTypeInfo kTypes[] = {
    {GgmlType::kF32, "F32", 1, 4},      {GgmlType::kF16, "F16", 1, 2},      {GgmlType::kQ8_0, "Q8_0", 32, 34},
    {GgmlType::kI8, "I8", 1, 1},        {GgmlType::kI16, "I16", 1, 2},      {GgmlType::kI32, "I32", 1, 4},
    {GgmlType::kI64, "I64", 1, 8},      {GgmlType::kF64, "F64", 1, 8},      {GgmlType::kBf16, "BF16", 1, 2},
    {GgmlType::kTq1_0, "TQ1_0", 256, 54}, {GgmlType::kTq2_0, "TQ2_0", 256, 66},
};

constexpr uint16_t kHalfOne = 0x3C00;
constexpr int64_t kTernaryBlock = 256;
constexpr int64_t kTq2Bytes = 66, kTq2DOffset = 64;
constexpr int64_t kTq1Bytes = 54, kTq1DOffset = 52;

uint16_t Load16(const uint8_t* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}
void Store16(uint8_t* p, uint16_t value) { std::memcpy(p, &value, sizeof value); }

// TQ2_0: two halves of 128 weights in 32 bytes; byte m of a half holds weights m + 32 n at bits 2n.
void PackTq2(const int8_t* codes, uint8_t* block) {
  for (int64_t half = 0; half < 2; ++half) {
    for (int64_t m = 0; m < 32; ++m) {
      unsigned byte = 0;
      for (int64_t n = 0; n < 4; ++n) byte |= static_cast<unsigned>(codes[half * 128 + m + 32 * n] + 1) << (2 * n);
      block[half * 32 + m] = static_cast<uint8_t>(byte);
    }
  }
  Store16(block + kTq2DOffset, kHalfOne);
}

bool UnpackTq2(const uint8_t* block, int8_t* codes) {
  bool valid = true;
  for (int64_t i = 0; i < kTernaryBlock; ++i) {
    const int64_t half = i / 128, m = i % 32, n = i % 128 / 32;
    const int code = block[half * 32 + m] >> (2 * n) & 3;
    valid = valid && code != 3;
    codes[i] = static_cast<int8_t>(code - 1);
  }
  return valid;
}

// TQ1_0 stores five trits t0..t4 (0, 1, 2; t0 first) of v = sum t_n 3^(4-n) as ceil(v * 256 / 243): multiplying the byte
// by 3^n modulo 256 and taking the top of three more times gives t_n back. Weights of byte b: 160 of them as 5 x 32 in bytes
// 0..31, 80 as 5 x 16 in bytes 32..47, 16 as 4 x 4 in bytes 48..51 (fifth trit 0).
struct Tq1Part {
  int64_t first_byte, bytes, first_weight, trits;
};
constexpr Tq1Part kTq1Parts[] = {{0, 32, 0, 5}, {32, 16, 160, 5}, {48, 4, 240, 4}};
constexpr unsigned kPowersOfThree[] = {1, 3, 9, 27, 81};

void PackTq1(const int8_t* codes, uint8_t* block) {
  for (const Tq1Part& part : kTq1Parts) {
    for (int64_t b = 0; b < part.bytes; ++b) {
      unsigned value = 0;
      for (int64_t n = 0; n < 5; ++n) {
        const int trit = n < part.trits ? codes[part.first_weight + n * part.bytes + b] + 1 : 0;
        value = value * 3 + static_cast<unsigned>(trit);
      }
      block[part.first_byte + b] = static_cast<uint8_t>((value * 256 + 242) / 243);
    }
  }
  Store16(block + kTq1DOffset, kHalfOne);
}

bool UnpackTq1(const uint8_t* block, int8_t* codes) {
  for (const Tq1Part& part : kTq1Parts) {
    for (int64_t b = 0; b < part.bytes; ++b) {
      for (int64_t n = 0; n < part.trits; ++n) {
        const unsigned shifted = block[part.first_byte + b] * kPowersOfThree[n] & 255u;
        codes[part.first_weight + n * part.bytes + b] = static_cast<int8_t>(static_cast<int>(shifted * 3 >> 8) - 1);
      }
    }
  }
  return true;   // Three values only can come out.
}

void EncodeQ8Block(const float* x, uint8_t* block) {
  float amax = 0;
  for (int64_t i = 0; i < 32; ++i) amax = std::max(amax, std::fabs(x[i]));
  const float d = amax / 127.0f, inverse = d != 0 ? 1.0f / d : 0.0f;
  Store16(block, Fp32ToFp16(d));
  for (int64_t i = 0; i < 32; ++i) block[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(std::round(x[i] * inverse)));
}

void DecodeQ8Block(const uint8_t* block, float* out) {
  const float d = Fp16ToFp32(Load16(block));
  for (int64_t i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}

bool IsTernary(GgmlType type) { return type == GgmlType::kTq1_0 || type == GgmlType::kTq2_0; }

}  // namespace

std::optional<GgmlTypeInfo> FindGgmlType(uint32_t number) {
  for (const GgmlTypeInfo& info : kTypes) {
    if (static_cast<uint32_t>(info.type) == number) return info;
  }
  return std::nullopt;
}

const GgmlTypeInfo& InfoOf(GgmlType type) {
  for (const GgmlTypeInfo& info : kTypes) {
    if (info.type == type) return info;
  }
  throw BugError(StrCat("no block layout for type ", static_cast<uint32_t>(type)));
}

int64_t RowBytes(GgmlType type, int64_t k) {
  const GgmlTypeInfo& info = InfoOf(type);
  TERN_CHECK_FORMAT(k % info.block_weights == 0, "rows of ", k, " elements cannot be ", info.name,
                    ", whose blocks have ", info.block_weights);
  return k / info.block_weights * info.block_bytes;
}

void EncodeRow(GgmlType type, const float* x, int64_t k, uint8_t* out) {
  RowBytes(type, k);
  switch (type) {
    case GgmlType::kF32: std::memcpy(out, x, static_cast<size_t>(k) * sizeof(float)); return;
    case GgmlType::kF16:
      for (int64_t i = 0; i < k; ++i) Store16(out + 2 * i, Fp32ToFp16(x[i]));
      return;
    case GgmlType::kBf16:
      for (int64_t i = 0; i < k; ++i) Store16(out + 2 * i, Fp32ToBf16(x[i]));
      return;
    case GgmlType::kQ8_0:
      for (int64_t b = 0; b < k / 32; ++b) EncodeQ8Block(x + 32 * b, out + 34 * b);
      return;
    default: throw FormatError(StrCat("float rows cannot be written as ", InfoOf(type).name));
  }
}

void DecodeRow(GgmlType type, const uint8_t* row, int64_t k, float* out) {
  RowBytes(type, k);
  switch (type) {
    case GgmlType::kF32: std::memcpy(out, row, static_cast<size_t>(k) * sizeof(float)); return;
    case GgmlType::kF16:
      for (int64_t i = 0; i < k; ++i) out[i] = Fp16ToFp32(Load16(row + 2 * i));
      return;
    case GgmlType::kBf16:
      for (int64_t i = 0; i < k; ++i) out[i] = Bf16ToFp32(Load16(row + 2 * i));
      return;
    case GgmlType::kQ8_0:
      for (int64_t b = 0; b < k / 32; ++b) DecodeQ8Block(row + 34 * b, out + 32 * b);
      return;
    case GgmlType::kTq1_0:
    case GgmlType::kTq2_0: {
      const bool two = type == GgmlType::kTq2_0;
      int8_t codes[kTernaryBlock];
      for (int64_t b = 0; b < k / kTernaryBlock; ++b) {
        const uint8_t* block = row + b * (two ? kTq2Bytes : kTq1Bytes);
        two ? UnpackTq2(block, codes) : UnpackTq1(block, codes);
        const float d = Fp16ToFp32(Load16(block + (two ? kTq2DOffset : kTq1DOffset)));
        for (int64_t i = 0; i < kTernaryBlock; ++i) out[b * kTernaryBlock + i] = d * static_cast<float>(codes[i]);
      }
      return;
    }
    default: throw FormatError(StrCat("rows of ", InfoOf(type).name, " cannot be read as floats"));
  }
}

void EncodeTernaryRow(GgmlType type, const int8_t* codes, int64_t k, uint8_t* out) {
  TERN_CHECK(IsTernary(type), InfoOf(type).name);
  RowBytes(type, k);
  for (int64_t b = 0; b < k / kTernaryBlock; ++b) {
    if (type == GgmlType::kTq2_0) {
      PackTq2(codes + b * kTernaryBlock, out + b * kTq2Bytes);
    } else {
      PackTq1(codes + b * kTernaryBlock, out + b * kTq1Bytes);
    }
  }
}

float DecodeTernaryRow(GgmlType type, const uint8_t* row, int64_t k, int8_t* codes) {
  TERN_CHECK(IsTernary(type), InfoOf(type).name);
  RowBytes(type, k);
  const bool two = type == GgmlType::kTq2_0;
  uint16_t d_bits = kHalfOne;
  for (int64_t b = 0; b < k / kTernaryBlock; ++b) {
    const uint8_t* block = row + b * (two ? kTq2Bytes : kTq1Bytes);
    const bool valid = two ? UnpackTq2(block, codes + b * kTernaryBlock) : UnpackTq1(block, codes + b * kTernaryBlock);
    TERN_CHECK_FORMAT(valid, "block ", b, " of a ", InfoOf(type).name, " row holds a code that is none of -1, 0, 1");
    const uint16_t bits = Load16(block + (two ? kTq2DOffset : kTq1DOffset));
    TERN_CHECK_FORMAT(b == 0 || bits == d_bits, "blocks 0 and ", b, " of a ", InfoOf(type).name,
                      " row have different scales; this is not a ternary model with one scale a matrix");
    d_bits = bits;
  }
  return Fp16ToFp32(d_bits);
}

}  // namespace tern::formats
