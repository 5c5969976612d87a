// Hands out pieces of one allocation of a device, aligned as allocations of their own would be.
// With no memory it only counts: what is placed twice, first for the size, needs one allocation.
#pragma once

#include <cstdint>

namespace tern::engine {

class DeviceArena {
 public:
  explicit DeviceArena(char* base) : base_(base) {}

  // Null while counting.
  template <class T>
  T* Take(int64_t count) {
    constexpr int64_t kAlignment = 256;
    char* at = base_ == nullptr ? nullptr : base_ + size_bytes_;
    size_bytes_ +=
        (count * static_cast<int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
    return reinterpret_cast<T*>(at);
  }
  int64_t size_bytes() const { return size_bytes_; }

 private:
  char* base_;
  int64_t size_bytes_ = 0;
};

}  // namespace tern::engine
