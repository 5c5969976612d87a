// Counts the heap of a test binary: while a limit is armed, an allocation that takes the live bytes
// above it throws std::bad_alloc, which no reader may cause. The replaced operators are in
// allocation_limit_test.cc.
#pragma once

#include <cstddef>

namespace tern::formats::testing {

// Live bytes allocated in a scope may not exceed `limit_bytes` above those at its begin.
class AllocationLimit {
 public:
  explicit AllocationLimit(size_t limit_bytes);
  ~AllocationLimit();
  AllocationLimit(const AllocationLimit&) = delete;
  AllocationLimit& operator=(const AllocationLimit&) = delete;
};

}  // namespace tern::formats::testing
