// HugePageVector: arrays are aligned, do not overlap, keep their contents, and their memory goes
// back.
#include "base/huge_pages.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <numeric>
#include <random>

namespace tern {
namespace {

TEST(HugePages, ArraysOfEverySizeKeepTheirContents) {
  std::mt19937 random(1);
  std::vector<HugePageVector<uint8_t>> arrays;
  for (const size_t size : {0u, 1u, 63u, 64u, 65u, 4096u, 3u << 20, 33u << 20, 70u << 20, 100u}) {
    arrays.emplace_back(size, static_cast<uint8_t>(arrays.size() + 1));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(arrays.back().data()) % 64, 0u);
  }
  for (int i = 0; i < 200; ++i) {  // Frees and allocates between them
    HugePageVector<uint8_t>& array = arrays[2 + random() % 5];
    const auto value = array[0];
    HugePageVector<uint8_t>(array.size() + random() % 1000, value).swap(array);
  }
  for (size_t i = 0; i < arrays.size(); ++i) {
    for (const uint8_t byte : arrays[i]) ASSERT_EQ(byte, i + 1);
  }
}

int64_t AddressSpacePages() {
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages;
}

TEST(HugePages, FreedSlabsGoBackToTheSystem) {
  { HugePageVector<uint8_t> warm(100); }
  const int64_t before = AddressSpacePages();
  {
    HugePageVector<uint8_t> large(80 << 20), other(90 << 20);
    EXPECT_GT(AddressSpacePages(), before + (160 << 20) / 4096);
    HugePageVector<uint8_t> copy = large;
    EXPECT_EQ(copy, large);
  }
  EXPECT_LT(AddressSpacePages(), before + (70 << 20) / 4096);  // A slab may stay for later arrays
}

}  // namespace
}  // namespace tern
