// Rows of the older block types of ggml, Q4_0, Q4_1, Q5_0 and Q5_1 (docs/formats/block_codecs.md):
// 32 weights of 4 or 5 bits with one fp16 scale d and, in the _1 types, one fp16 offset m.
// Every pattern of bits is a valid block; a d or m that is Inf or NaN gives such weights.
// Bit-equal to ggml's decoders: w = d (q - 8), d (q - 16) or (d q) + m in fp32, not fused.
#pragma once

#include <cstdint>

namespace tern::formats {

inline constexpr int64_t kLegacyWeights = 32;
inline constexpr int64_t kQ4_0Bytes = 18, kQ4_1Bytes = 20, kQ5_0Bytes = 22, kQ5_1Bytes = 24;

// REQUIRES everywhere: k is a multiple of 32; `row` holds k / 32 blocks, `out` k numbers.
void DecodeQ4_0(const uint8_t* row, int64_t k, float* out);
void DecodeQ4_1(const uint8_t* row, int64_t k, float* out);
void DecodeQ5_0(const uint8_t* row, int64_t k, float* out);
void DecodeQ5_1(const uint8_t* row, int64_t k, float* out);

// A block from codes -8 to 7, [32], and the bits of its d.
void PackQ4_0(const int8_t* codes, uint16_t d, uint8_t* block);

// importance[k]: of each column, or null. Throw InputError for NaN, Inf and scales beyond fp16.
void EncodeQ4_0(const float* x, const float* importance, int64_t k, uint8_t* out);
void EncodeQ4_1(const float* x, const float* importance, int64_t k, uint8_t* out);
void EncodeQ5_0(const float* x, const float* importance, int64_t k, uint8_t* out);
void EncodeQ5_1(const float* x, const float* importance, int64_t k, uint8_t* out);

}  // namespace tern::formats
