// Counter-based random numbers (Philox 4x32-10: Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011). A stream is named and seeded; its whole state is one 64-bit counter, so it
// can be stored, resumed and sharded: value i of a stream is a pure function of (seed, name, i),
// whoever asks and in whatever order.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace tern {

// One Philox 4x32-10 block: 128 bits of counter and 64 bits of key to 128 random bits.
std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);
// Its constants, for what makes the same numbers elsewhere (quant/device_neutral_formats.cc).
inline constexpr int kPhiloxRounds = 10;
inline constexpr std::array<uint32_t, 2> kPhiloxMultipliers = {0xD2511F53, 0xCD9E8D57};
inline constexpr std::array<uint32_t, 2> kPhiloxWeyl = {0x9E3779B9, 0xBB67AE85};  // Key schedule

class RandomStream {
 public:
  RandomStream(uint64_t seed, std::string_view name, uint64_t counter = 0);

  // Value `index` of the stream, independent of the counter: the first two words of Philox4x32 of
  // {index's low half, its high half, 0, 0}, the first below the second.
  uint64_t At(uint64_t index) const;

  uint64_t NextU64() { return At(counter_++); }
  // Uniform in [0, 1), with 24 and with 53 bits.
  float UniformAt(uint64_t index) const { return static_cast<float>(At(index) >> 40) * 0x1.0p-24f; }
  double Uniform53At(uint64_t index) const {
    return static_cast<double>(At(index) >> 11) * 0x1.0p-53;
  }
  float NextUniform() { return UniformAt(counter_++); }
  // Standard normal by Box-Muller; takes one value of the stream.
  float NextNormal();

  const std::array<uint32_t, 2>& key() const { return key_; }
  uint64_t counter() const { return counter_; }
  void set_counter(uint64_t counter) { counter_ = counter; }

 private:
  std::array<uint32_t, 2> key_;
  uint64_t counter_;
};

// A bijection of [0, size) onto itself chosen by `key`: element `index` of a pseudo-random
// permutation without a table (balanced Feistel network with cycle walking). REQUIRES: index <
// size.
uint64_t PermuteIndex(uint64_t index, uint64_t size, uint64_t key);

}  // namespace tern
