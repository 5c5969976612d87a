// Blocks of the ternary types TQ1_0 and TQ2_0 (docs/formats/block_codecs.md): 256 weights of codes
// -1, 0, 1 and one fp16 scale d. Rows and checks are in block_codec.h; here is only the placing of
// bits. REQUIRES everywhere: codes are -1, 0 or 1, pointers hold a whole block.
#pragma once

#include <cstdint>

namespace tern::formats {

inline constexpr int64_t kTqWeights = 256;
inline constexpr int64_t kTq1Bytes = 54, kTq1ScaleOffset = 52;
inline constexpr int64_t kTq2Bytes = 66, kTq2ScaleOffset = 64;

// The codes only; d is stored by the caller at the type's scale offset.
void PackTq1(const int8_t* codes, uint8_t* block);
void PackTq2(const int8_t* codes, uint8_t* block);
void UnpackTq1(const uint8_t* block, int8_t* codes);
// The bit pattern 3 gives the code 2, as ggml reads it; returns false when there is one.
bool UnpackTq2(const uint8_t* block, int8_t* codes);
// The bytes of the codes as they are, [64]; returns false when there is a bit pattern 3.
bool CopyTq2(const uint8_t* block, uint8_t* planes);

}  // namespace tern::formats
