// Streams of bits: words by hand, and the way there and back for every width and length.
#include "formats/bit_pack.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/random.h"

namespace tern::formats {
namespace {

TEST(BitPackTest, WordsByHand) {
  uint32_t words[2];
  const uint8_t four[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  PackBits(four, 9, 4, words);
  EXPECT_EQ(words[0], 0x87654321u);
  EXPECT_EQ(words[1], 9u);
  // 3 bits: element 10 lies at bits 30 to 32, so its highest bit begins the second word.
  uint8_t three[11] = {};
  three[10] = 6;
  three[0] = 5;
  PackBits(three, 11, 3, words);
  EXPECT_EQ(words[0], 0x80000005u);
  EXPECT_EQ(words[1], 1u);
}

TEST(BitPackTest, ThereAndBack) {
  RandomStream random(1, "codes");
  for (int bits = 1; bits <= 8; ++bits) {
    for (const int64_t count : {1, 7, 31, 32, 33, 64, 100}) {
      std::vector<uint8_t> codes(static_cast<size_t>(count)), back(codes.size());
      for (uint8_t& code : codes) code = static_cast<uint8_t>(random.NextU64() % (1u << bits));
      std::vector<uint32_t> words(static_cast<size_t>(PackedWords(count, bits)), ~0u);
      PackBits(codes.data(), count, bits, words.data());
      UnpackBits(words.data(), count, bits, back.data());
      EXPECT_EQ(codes, back) << bits << " bits, " << count;
      const int used = static_cast<int>(count * bits % 32);
      if (used != 0) {
        EXPECT_EQ(words.back() >> used, 0u);
      }
    }
  }
}

}  // namespace
}  // namespace tern::formats
