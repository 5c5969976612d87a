// See block_codec.h. One table of types with their row functions; the ternary blocks themselves are
// in tq_blocks.cc, the older types in legacy_*.cc, the k-quants in k_*.cc.
#include "formats/block_codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "formats/block_search.h"
#include "formats/half.h"
#include "formats/half_rows.h"
#include "formats/i2_s.h"
#include "formats/k_blocks.h"
#include "formats/legacy_blocks.h"
#include "formats/tq_blocks.h"

namespace tern::formats {
namespace {

constexpr uint16_t kHalfOne = 0x3C00;
constexpr int64_t kQ8Weights = 32, kQ8Bytes = 34;

void Store16(uint8_t* p, uint16_t value) { std::memcpy(p, &value, sizeof value); }

void EncodeF32(const float* x, const float*, int64_t k, uint8_t* out) {
  if (k > 0) std::memcpy(out, x, static_cast<size_t>(k) * sizeof(float));
}
void DecodeF32(const uint8_t* row, int64_t k, float* out) {
  if (k > 0) std::memcpy(out, row, static_cast<size_t>(k) * sizeof(float));
}

template <uint16_t (*kConvert)(float)>
void EncodeHalves(const float* x, const float*, int64_t k, uint8_t* out) {
  for (int64_t i = 0; i < k; ++i) Store16(out + 2 * i, kConvert(x[i]));
}
void DecodeBf16(const uint8_t* row, int64_t k, float* out) {
  for (int64_t i = 0; i < k; ++i) out[i] = Bf16ToFp32(LoadHalfBits(row + 2 * i));
}

// 1/d, or 0 where that is not a number of fp32: then d is 0 as fp16, too.
float Inverse(float d) {
  const float inverse = 1.0f / d;
  return std::isfinite(inverse) ? inverse : 0.0f;
}

// std::round of a number that int holds, as arithmetic that the compiler makes vectors of.
int RoundHalfAway(float x) {
  const int whole = static_cast<int>(x);
  const float rest = x - static_cast<float>(whole);
  return whole + (rest >= 0.5f ? 1 : 0) - (rest <= -0.5f ? 1 : 0);
}

void EncodeQ8(const float* x, const float*, int64_t k, uint8_t* out) {
  for (; k > 0; k -= kQ8Weights, x += kQ8Weights, out += kQ8Bytes) {
    const float d = CheckedAmax(x, kQ8Weights, 127.0f) / 127.0f, inverse = Inverse(d);
    Store16(out, Fp32ToFp16(d));
    for (int64_t i = 0; i < kQ8Weights; ++i) {
      out[2 + i] = static_cast<uint8_t>(RoundHalfAway(x[i] * inverse));
    }
  }
}
void DecodeQ8(const uint8_t* row, int64_t k, float* out) {
  for (; k > 0; k -= kQ8Weights, row += kQ8Bytes, out += kQ8Weights) {
    const float d = LoadFp16(row);
    for (int64_t i = 0; i < kQ8Weights; ++i) {
      out[i] = d * static_cast<float>(static_cast<int8_t>(row[2 + i]));
    }
  }
}

// What differs between the two ternary types.
struct Tq1 {
  using Code = int8_t;
  static constexpr int64_t kCodes = kTqWeights;  // A block
  static constexpr int64_t kBytes = kTq1Bytes, kScaleOffset = kTq1ScaleOffset;
  static void Pack(const int8_t* codes, uint8_t* block) { PackTq1(codes, block); }
  static bool Unpack(const uint8_t* block, int8_t* codes) {
    UnpackTq1(block, codes);
    return true;  // Nothing but -1, 0, 1 can come out.
  }
};
struct Tq2 {
  using Code = int8_t;
  static constexpr int64_t kCodes = kTqWeights;
  static constexpr int64_t kBytes = kTq2Bytes, kScaleOffset = kTq2ScaleOffset;
  static void Pack(const int8_t* codes, uint8_t* block) { PackTq2(codes, block); }
  static bool Unpack(const uint8_t* block, int8_t* codes) { return UnpackTq2(block, codes); }
};
// TQ2_0 whose codes stay packed.
struct Tq2Planes {
  using Code = uint8_t;
  static constexpr int64_t kCodes = kTq2ScaleOffset;
  static constexpr int64_t kBytes = kTq2Bytes, kScaleOffset = kTq2ScaleOffset;
  static bool Unpack(const uint8_t* block, uint8_t* planes) { return CopyTq2(block, planes); }
};

template <class Tq>
void EncodeTqFloats(const float* x, const float*, int64_t k, uint8_t* out) {
  for (; k > 0; k -= kTqWeights, x += kTqWeights, out += Tq::kBytes) {
    const float d = CheckedAmax(x, kTqWeights, 1.0f), inverse = Inverse(d);
    int8_t codes[kTqWeights];
    for (int64_t i = 0; i < kTqWeights; ++i) {
      codes[i] = static_cast<int8_t>(std::round(x[i] * inverse));
    }
    Tq::Pack(codes, out);
    Store16(out + Tq::kScaleOffset, Fp32ToFp16(d));
  }
}
template <class Tq>
void DecodeTqFloats(const uint8_t* row, int64_t k, float* out) {
  for (; k > 0; k -= kTqWeights, row += Tq::kBytes, out += kTqWeights) {
    int8_t codes[kTqWeights];
    Tq::Unpack(row, codes);
    const float d = LoadFp16(row + Tq::kScaleOffset);
    for (int64_t i = 0; i < kTqWeights; ++i) out[i] = d * static_cast<float>(codes[i]);
  }
}

template <class Tq>
void EncodeTqCodes(const int8_t* codes, int64_t k, uint8_t* out) {
  for (; k > 0; k -= kTqWeights, codes += kTqWeights, out += Tq::kBytes) {
    Tq::Pack(codes, out);
    Store16(out + Tq::kScaleOffset, kHalfOne);
  }
}
template <class Tq>
float DecodeTqCodes(const uint8_t* row, int64_t k, typename Tq::Code* codes) {
  const int64_t blocks = k / kTqWeights;
  const uint16_t d = blocks > 0 ? LoadHalfBits(row + Tq::kScaleOffset) : kHalfOne;
  for (int64_t b = 0; b < blocks; ++b, row += Tq::kBytes, codes += Tq::kCodes) {
    TERN_CHECK_FORMAT(Tq::Unpack(row, codes), "block ", b,
                      " of a ternary row holds a code that is none of -1, 0, 1");
    TERN_CHECK_FORMAT(LoadHalfBits(row + Tq::kScaleOffset) == d, "blocks 0 and ", b,
                      " of a ternary row have different scales; this is not a ternary model with "
                      "one scale a matrix");
  }
  return Fp16ToFp32(d);
}

// Numbers of a block whose Inf or NaN makes all its weights such, and whose finite values cannot:
// `count` of them, one after the other.
enum class ScaleKind { kNone, kFp16, kBf16, kFp32 };
struct Scales {
  ScaleKind kind = ScaleKind::kNone;
  int64_t offset = 0, count = 1;
};

struct Codec {
  GgmlTypeInfo info;
  // Null: not written from floats. importance: null, or of each column; ignored by simple types.
  void (*encode)(const float* x, const float* importance, int64_t k, uint8_t* out);
  void (*decode)(const uint8_t* row, int64_t k, float* out);  // Null: not read as floats
  Scales scales = {};
};
using enum ScaleKind;
constexpr Codec kCodecs[] = {
    {{GgmlType::kF32, "F32", 1, 4}, EncodeF32, DecodeF32, {kFp32}},
    {{GgmlType::kF16, "F16", 1, 2}, EncodeHalves<Fp32ToFp16>, DecodeFp16, {kFp16}},
    {{GgmlType::kQ4_0, "Q4_0", kLegacyWeights, kQ4_0Bytes}, EncodeQ4_0, DecodeQ4_0, {kFp16}},
    {{GgmlType::kQ4_1, "Q4_1", kLegacyWeights, kQ4_1Bytes}, EncodeQ4_1, DecodeQ4_1, {kFp16, 0, 2}},
    {{GgmlType::kQ5_0, "Q5_0", kLegacyWeights, kQ5_0Bytes}, EncodeQ5_0, DecodeQ5_0, {kFp16}},
    {{GgmlType::kQ5_1, "Q5_1", kLegacyWeights, kQ5_1Bytes}, EncodeQ5_1, DecodeQ5_1, {kFp16, 0, 2}},
    {{GgmlType::kQ8_0, "Q8_0", kQ8Weights, kQ8Bytes}, EncodeQ8, DecodeQ8, {kFp16}},
    {{GgmlType::kQ2_K, "Q2_K", kKWeights, kQ2KBytes},
     EncodeQ2K,
     DecodeQ2K,
     {kFp16, kQ2KScaleOffset, 2}},
    {{GgmlType::kQ3_K, "Q3_K", kKWeights, kQ3KBytes},
     EncodeQ3K,
     DecodeQ3K,
     {kFp16, kQ3KScaleOffset}},
    {{GgmlType::kQ4_K, "Q4_K", kKWeights, kQ4KBytes},
     EncodeQ4K,
     DecodeQ4K,
     {kFp16, kQ4KScaleOffset, 2}},
    {{GgmlType::kQ5_K, "Q5_K", kKWeights, kQ5KBytes},
     EncodeQ5K,
     DecodeQ5K,
     {kFp16, kQ5KScaleOffset, 2}},
    {{GgmlType::kQ6_K, "Q6_K", kKWeights, kQ6KBytes},
     EncodeQ6K,
     DecodeQ6K,
     {kFp16, kQ6KScaleOffset}},
    {{GgmlType::kI8, "I8", 1, 1}, nullptr, nullptr},
    {{GgmlType::kI16, "I16", 1, 2}, nullptr, nullptr},
    {{GgmlType::kI32, "I32", 1, 4}, nullptr, nullptr},
    {{GgmlType::kI64, "I64", 1, 8}, nullptr, nullptr},
    {{GgmlType::kF64, "F64", 1, 8}, nullptr, nullptr},
    {{GgmlType::kBf16, "BF16", 1, 2}, EncodeHalves<Fp32ToBf16>, DecodeBf16, {kBf16}},
    {{GgmlType::kTq1_0, "TQ1_0", kTqWeights, kTq1Bytes},
     EncodeTqFloats<Tq1>,
     DecodeTqFloats<Tq1>,
     {kFp16, kTq1ScaleOffset}},
    {{GgmlType::kTq2_0, "TQ2_0", kTqWeights, kTq2Bytes},
     EncodeTqFloats<Tq2>,
     DecodeTqFloats<Tq2>,
     {kFp16, kTq2ScaleOffset}},
    {{GgmlType::kI2_S, "I2_S", kI2sWeights, kI2sBlockBytes}, nullptr, nullptr},
};

const Codec* FindCodec(uint32_t number) {
  for (const Codec& codec : kCodecs) {
    if (static_cast<uint32_t>(codec.info.type) == number) return &codec;
  }
  return nullptr;
}

const Codec& CodecOf(GgmlType type) {
  const Codec* codec = FindCodec(static_cast<uint32_t>(type));
  TERN_CHECK(codec != nullptr, "no block layout for type ", static_cast<uint32_t>(type));
  return *codec;
}

// The codec that reads rows of k elements as floats.
const Codec& Decoder(GgmlType type, int64_t k) {
  RowBytes(type, k);
  const Codec& codec = CodecOf(type);
  TERN_CHECK_FORMAT(codec.decode != nullptr, "rows of ", codec.info.name,
                    " cannot be read as floats");
  return codec;
}

// Whether all numbers of a row are finite, eight bytes at a time: an exponent e of all ones is the
// only one for which the complement has no bit to carry into the sign's place when the mask of the
// exponent is added. Leaves a rest of less than eight bytes to be looked at one by one (false).
bool AllFinite(ScaleKind kind, const uint8_t* row, int64_t size_bytes) {
  if (size_bytes % 8 != 0) return false;
  const uint64_t exponent = kind == kFp16   ? 0x7C007C007C007C00u
                            : kind == kBf16 ? 0x7F807F807F807F80u
                                            : 0x7F8000007F800000u;
  const uint64_t sign = kind == kFp32 ? 0x8000000080000000u : 0x8000800080008000u;
  uint64_t all = sign;
  for (int64_t i = 0; i < size_bytes; i += 8) {
    uint64_t word;
    std::memcpy(&word, row + i, sizeof word);
    all &= (~word & exponent) + exponent;
  }
  return (all & sign) == sign;
}

bool IsFinite(ScaleKind kind, const uint8_t* bytes) {
  switch (kind) {
    case kNone:
      return true;
    case kFp16:
      return (LoadHalfBits(bytes) & 0x7C00u) != 0x7C00u;
    case kBf16:
      return (LoadHalfBits(bytes) & 0x7F80u) != 0x7F80u;
    case kFp32:
      return (LoadHalfBits(bytes + 2) & 0x7F80u) != 0x7F80u;
  }
  return false;
}

bool IsTq(GgmlType type) { return type == GgmlType::kTq1_0 || type == GgmlType::kTq2_0; }

}  // namespace

std::optional<GgmlTypeInfo> FindGgmlType(uint32_t number) {
  const Codec* codec = FindCodec(number);
  return codec != nullptr ? std::optional(codec->info) : std::nullopt;
}

std::string WeightTypeNames() {
  std::string names;
  for (const Codec& codec : kCodecs) {
    if (codec.decode == nullptr && codec.info.type != GgmlType::kI2_S) continue;
    names += StrCat(names.empty() ? "" : ", ", codec.info.name);
  }
  return names;
}

const GgmlTypeInfo& InfoOf(GgmlType type) { return CodecOf(type).info; }

int64_t RowBytes(GgmlType type, int64_t k) {
  const GgmlTypeInfo& info = InfoOf(type);
  TERN_CHECK(k >= 0, k);
  TERN_CHECK_FORMAT(k % info.block_weights == 0, "rows of ", k, " elements cannot be ", info.name,
                    ", whose blocks have ", info.block_weights);
  return k / info.block_weights * info.block_bytes;
}

int64_t TailBytes(GgmlType type) { return type == GgmlType::kI2_S ? kI2sTailBytes : 0; }

void EncodeRow(GgmlType type, const float* x, int64_t k, uint8_t* out, const float* importance) {
  RowBytes(type, k);
  const Codec& codec = CodecOf(type);
  TERN_CHECK_FORMAT(codec.encode != nullptr, "float rows cannot be written as ", codec.info.name);
  codec.encode(x, importance, k, out);
}

void EncodeCodes(GgmlType type, const int8_t* codes, const float* d, int64_t k, uint8_t* out) {
  TERN_CHECK(type == GgmlType::kQ4_0 || type == GgmlType::kQ8_0, InfoOf(type).name);
  static_assert(kQ8Weights == kLegacyWeights);
  const int64_t block_bytes = InfoOf(type).block_bytes;
  for (int64_t at = 0; at < k; at += kQ8Weights, codes += kQ8Weights, ++d, out += block_bytes) {
    const uint16_t bits = Fp32ToFp16(*d);
    TERN_CHECK(Fp16ToFp32(bits) == *d, *d, " is no fp16 number");
    if (type == GgmlType::kQ4_0) {
      PackQ4_0(codes, bits, out);
    } else {
      Store16(out, bits);
      std::memcpy(out + 2, codes, kQ8Weights);
    }
  }
}

void DecodeRow(GgmlType type, const uint8_t* row, int64_t k, float* out) {
  Decoder(type, k).decode(row, k, out);
}

bool IsReadAsFloats(GgmlType type) { return CodecOf(type).decode != nullptr; }

int64_t FindNonFinite(GgmlType type, const uint8_t* row, int64_t k) {
  const Codec& codec = Decoder(type, k);
  const auto& [kind, offset, count] = codec.scales;
  if (codec.info.block_weights == 1 && AllFinite(kind, row, k * codec.info.block_bytes)) return k;
  const int64_t scale_bytes = kind == kFp32 ? 4 : 2;
  for (int64_t at = 0; at < k; at += codec.info.block_weights, row += codec.info.block_bytes) {
    for (int64_t i = 0; i < count; ++i) {
      if (!IsFinite(kind, row + offset + i * scale_bytes)) return at;
    }
  }
  return k;
}

void EncodeTernaryRow(GgmlType type, const int8_t* codes, int64_t k, uint8_t* out) {
  TERN_CHECK(IsTq(type), InfoOf(type).name);
  RowBytes(type, k);
  type == GgmlType::kTq1_0 ? EncodeTqCodes<Tq1>(codes, k, out) : EncodeTqCodes<Tq2>(codes, k, out);
}

float DecodeTernaryRow(GgmlType type, const uint8_t* row, int64_t k, int8_t* codes) {
  TERN_CHECK(IsTq(type), InfoOf(type).name);
  RowBytes(type, k);
  return type == GgmlType::kTq1_0 ? DecodeTqCodes<Tq1>(row, k, codes)
                                  : DecodeTqCodes<Tq2>(row, k, codes);
}

float CopyTq2Planes(const uint8_t* row, int64_t k, uint8_t* planes) {
  RowBytes(GgmlType::kTq2_0, k);
  return DecodeTqCodes<Tq2Planes>(row, k, planes);
}

}  // namespace tern::formats
