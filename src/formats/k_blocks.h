// Rows of the k-quants of ggml, Q2_K to Q6_K (docs/formats/block_codecs.md): blocks of 256 weights
// in sub-blocks of 16 or 32 with small integer scales, and one fp16 d (and dmin) that these
// multiply. Every pattern of bits is a valid block; a d or dmin that is Inf or NaN
// gives such weights. Bit-equal to ggml's decoders: w = (d sc) q - (dmin m), or (d sc) q, in fp32,
// not fused.
#pragma once

#include <cstdint>

namespace tern::formats {

inline constexpr int64_t kKWeights = 256;
inline constexpr int64_t kQ2KBytes = 84, kQ3KBytes = 110, kQ4KBytes = 144, kQ5KBytes = 176,
                         kQ6KBytes = 210;
// Where the block keeps d; dmin, where there is one, follows it.
inline constexpr int64_t kQ2KScaleOffset = 80, kQ3KScaleOffset = 108, kQ4KScaleOffset = 0,
                         kQ5KScaleOffset = 0, kQ6KScaleOffset = 208;

// REQUIRES everywhere: k is a multiple of 256; `row` holds k / 256 blocks, `out` k numbers.
void DecodeQ2K(const uint8_t* row, int64_t k, float* out);
void DecodeQ3K(const uint8_t* row, int64_t k, float* out);
void DecodeQ4K(const uint8_t* row, int64_t k, float* out);
void DecodeQ5K(const uint8_t* row, int64_t k, float* out);
void DecodeQ6K(const uint8_t* row, int64_t k, float* out);

// importance[k]: of each column, or null. Throw InputError for NaN, Inf and scales beyond fp16.
void EncodeQ2K(const float* x, const float* importance, int64_t k, uint8_t* out);
void EncodeQ3K(const float* x, const float* importance, int64_t k, uint8_t* out);
void EncodeQ4K(const float* x, const float* importance, int64_t k, uint8_t* out);
void EncodeQ5K(const float* x, const float* importance, int64_t k, uint8_t* out);
void EncodeQ6K(const float* x, const float* importance, int64_t k, uint8_t* out);

}  // namespace tern::formats
