// See bit_pack.h.
#include "formats/bit_pack.h"

#include <algorithm>

namespace tern::formats {

int64_t PackedWords(int64_t count, int bits) { return (count * bits + 31) / 32; }

void PackBits(const uint8_t* codes, int64_t count, int bits, uint32_t* out) {
  std::fill_n(out, PackedWords(count, bits), 0u);
  for (int64_t k = 0; k < count; ++k) {
    const int64_t at = k * bits;
    const uint64_t placed = uint64_t{codes[k]} << (at % 32);
    out[at / 32] |= static_cast<uint32_t>(placed);
    if (placed >> 32 != 0) out[at / 32 + 1] |= static_cast<uint32_t>(placed >> 32);
  }
}

void UnpackBits(const uint32_t* words, int64_t count, int bits, uint8_t* codes) {
  const int64_t last = PackedWords(count, bits) - 1;
  for (int64_t k = 0; k < count; ++k) {
    const int64_t at = k * bits, word = at / 32;
    const uint64_t both = words[word] | (word < last ? uint64_t{words[word + 1]} << 32 : 0);
    codes[k] = static_cast<uint8_t>(both >> (at % 32) & ((1u << bits) - 1));
  }
}

}  // namespace tern::formats
