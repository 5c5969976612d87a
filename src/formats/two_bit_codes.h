// Bytes of four 2-bit codes of ternary weights, of which 3 is none.
#pragma once

#include <cstdint>

namespace tern::formats {

// Whether a field of any of `count` bytes is 3.
inline bool HoldsThree(const uint8_t* bytes, int64_t count) {
  unsigned both = 0;  // Low bits of fields whose two bits are set
  for (int64_t i = 0; i < count; ++i) both |= bytes[i] & bytes[i] >> 1u;
  return (both & 0x55u) != 0;
}

}  // namespace tern::formats
