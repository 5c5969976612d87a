// Replaces the global allocation operators of this binary (allocation_limit.h) and shows that the
// limit holds. Sizes are what malloc really gives (malloc_usable_size).
#include "allocation_limit.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <limits>
#include <new>
#include <vector>

namespace {

std::atomic<size_t> live{0};
std::atomic<size_t> highest{std::numeric_limits<size_t>::max()};

}  // namespace

void* operator new(size_t size) {
  if (live + size > highest) throw std::bad_alloc();
  void* data = std::malloc(size == 0 ? 1 : size);
  if (data == nullptr) throw std::bad_alloc();
  live += malloc_usable_size(data);
  return data;
}
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  try {
    return ::operator new(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* data) noexcept {
  if (data == nullptr) return;
  live -= malloc_usable_size(data);
  std::free(data);
}
void* operator new[](size_t size) { return ::operator new(size); }
void operator delete[](void* data) noexcept { ::operator delete(data); }
void operator delete(void* data, size_t) noexcept { ::operator delete(data); }
void operator delete[](void* data, size_t) noexcept { ::operator delete(data); }

namespace tern::formats::testing {

AllocationLimit::AllocationLimit(size_t limit_bytes) { highest = live + limit_bytes; }
AllocationLimit::~AllocationLimit() { highest = std::numeric_limits<size_t>::max(); }

namespace {

TEST(AllocationLimitTest, HoldsInItsScopeOnly) {
  constexpr size_t kMebi = 1 << 20;
  {
    const AllocationLimit limit(4 * kMebi);
    EXPECT_NO_THROW(std::vector<char>(3 * kMebi));
    EXPECT_NO_THROW(std::vector<char>(3 * kMebi));  // The first is free again
    EXPECT_THROW(std::vector<char>(5 * kMebi), std::bad_alloc);
    const std::vector<char> held(3 * kMebi);
    EXPECT_THROW(std::vector<char>(2 * kMebi), std::bad_alloc);
  }
  EXPECT_NO_THROW(std::vector<char>(5 * kMebi));
}

}  // namespace
}  // namespace tern::formats::testing
