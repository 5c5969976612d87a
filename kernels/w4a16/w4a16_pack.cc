// The packed layout of 4-bit weights (w4a16.h): one row in, one row out, nothing lost.
#include <cstring>

#include "kernels/w4a16/w4a16_impl.h"

namespace tern::kernels {
namespace {

constexpr uint8_t kPadding = 8;

// Codes 0, 2, 4, 6 of a word, side by side.
uint32_t EvenNibbles(uint32_t word) {
  word &= 0x0F0F0F0Fu;
  word = (word | word >> 4) & 0x00FF00FFu;
  return (word | word >> 8) & 0xFFFFu;
}

}  // namespace

void PackW4Row(const uint8_t* codes, int64_t k, uint8_t* packed) {
  for (int64_t group = 0; group < W4Groups(k); ++group) {
    for (int64_t lane = 0; lane < kW4Lanes; ++lane) {
      uint32_t word = 0;
      for (int e = 0; e < kW4Steps; ++e) {
        const int64_t at = group * kW4Group + W4Place(lane, e);
        const uint32_t code = at < k ? codes[at] & 15u : kPadding;
        word |= code << W4Shift(e);
      }
      std::memcpy(packed + group * kW4GroupBytes + 4 * lane, &word, sizeof(word));
    }
  }
}

void PackW4Words(const uint8_t* words, int64_t k, uint8_t* packed) {
  constexpr uint32_t kAllPadding = 0x88888888u;
  for (int64_t group = 0; group < W4Groups(k); ++group) {
    for (int64_t lane = 0; lane < kW4Lanes; ++lane) {
      const int64_t at = group * kW4Group + W4Place(lane, 0);
      uint32_t word = kAllPadding;
      if (at < k) std::memcpy(&word, words + at / 2, sizeof(word));
      // What the file has beyond the last code of a row is of no meaning.
      if (at < k && k - at < 8) {
        const uint32_t keep = (1u << 4 * (k - at)) - 1;
        word = (word & keep) | (kAllPadding & ~keep);
      }
      word = EvenNibbles(word) | EvenNibbles(word >> 4) << 16;
      std::memcpy(packed + group * kW4GroupBytes + 4 * lane, &word, sizeof(word));
    }
  }
}

void UnpackW4Row(const uint8_t* packed, int64_t k, uint8_t* codes) {
  for (int64_t group = 0; group < W4Groups(k); ++group) {
    for (int64_t lane = 0; lane < kW4Lanes; ++lane) {
      uint32_t word;
      std::memcpy(&word, packed + group * kW4GroupBytes + 4 * lane, sizeof(word));
      for (int e = 0; e < kW4Steps; ++e) {
        const int64_t at = group * kW4Group + W4Place(lane, e);
        if (at < k) codes[at] = static_cast<uint8_t>(word >> W4Shift(e) & 15u);
      }
    }
  }
}

}  // namespace tern::kernels
