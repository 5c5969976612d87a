// Codes of 1 to 8 bits as one little-endian stream of bits in 32-bit words: element k of a row lies
// at bit k * bits and may straddle two words (compressed-tensors' pack-quantized since 0.20). Rows
// begin at a word of their own; bits behind the last element are 0.
#pragma once

#include <cstdint>

namespace tern::formats {

// Words of a row of `count` codes.
int64_t PackedWords(int64_t count, int bits);
// out[PackedWords]. REQUIRES: codes below 2^bits.
void PackBits(const uint8_t* codes, int64_t count, int bits, uint32_t* out);
void UnpackBits(const uint32_t* words, int64_t count, int bits, uint8_t* codes);

}  // namespace tern::formats
