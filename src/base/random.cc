// See random.h.
#include "base/random.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace tern {
namespace {

// FNV-1a, 64 bits: names are short and few, so spread matters, strength does not.
uint64_t HashName(std::string_view name) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3ull;
  return hash;
}

}  // namespace

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> key) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t p0 = uint64_t{kPhiloxMultipliers[0]} * c[0],
                   p1 = uint64_t{kPhiloxMultipliers[1]} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(p0)};
    key[0] += kPhiloxWeyl[0];
    key[1] += kPhiloxWeyl[1];
  }
  return c;
}

RandomStream::RandomStream(uint64_t seed, std::string_view name, uint64_t counter)
    : counter_(counter) {
  const uint64_t name_hash = HashName(name);
  const auto mixed =
      Philox4x32({static_cast<uint32_t>(name_hash), static_cast<uint32_t>(name_hash >> 32), 0, 0},
                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  key_ = {mixed[0], mixed[1]};
}

uint64_t RandomStream::At(uint64_t index) const {
  const auto block =
      Philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), 0, 0}, key_);
  return block[0] | uint64_t{block[1]} << 32;
}

float RandomStream::NextNormal() {
  const uint64_t bits = NextU64();
  const double u =
      (static_cast<double>(bits >> 32) + 0.5) * 0x1.0p-32;  // In (0, 1): log is finite.
  const double v = static_cast<double>(bits & 0xFFFFFFFFu) * 0x1.0p-32;
  return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v));
}

uint64_t PermuteIndex(uint64_t index, uint64_t size, uint64_t key) {
  TERN_CHECK(index < size, "index ", index, " of a permutation of ", size);
  const int half_bits = std::max(1, (static_cast<int>(std::bit_width(size - 1)) + 1) / 2);
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  const std::array<uint32_t, 2> philox_key = {static_cast<uint32_t>(key),
                                              static_cast<uint32_t>(key >> 32)};
  do {  // The network permutes [0, 4^half_bits), less than 4 * size: a few walks at most bring us
        // below size.
    uint64_t left = index >> half_bits, right = index & mask;
    for (uint32_t round = 0; round < 4; ++round) {
      const auto f = Philox4x32(
          {static_cast<uint32_t>(right), static_cast<uint32_t>(right >> 32), round, 1}, philox_key);
      const uint64_t mixed = (left ^ (f[0] | uint64_t{f[1]} << 32)) & mask;
      left = right;
      right = mixed;
    }
    index = left << half_bits | right;
  } while (index >= size);
  return index;
}

}  // namespace tern
