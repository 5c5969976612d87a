// The packed layout of 4-bit weights (w4a16.h): one row in, one row out, nothing lost.
#include <cstring>

#include "kernels/w4a16/w4a16_impl.h"

namespace tern::kernels {
namespace {

constexpr uint8_t kPadding = 8;

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
