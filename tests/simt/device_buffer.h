// Memory as a device gives it, for the tests of CUDA kernels: aligned to 256 bytes and of exact
// size, so that ASan sees the first byte beyond it; filled with a value that a kernel must not
// leave or read unnoticed.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <vector>

namespace tern::kernels {

template <class T>
class DeviceBuffer {
 public:
  DeviceBuffer(int64_t count, T fill) : size_(static_cast<size_t>(count)) {
    void* p = nullptr;
    if (posix_memalign(&p, 256, size_ * sizeof(T)) != 0) std::abort();
    data_ = static_cast<T*>(p);
    for (size_t i = 0; i < size_; ++i) data_[i] = fill;
  }
  explicit DeviceBuffer(const std::vector<T>& values)
      : DeviceBuffer(static_cast<int64_t>(values.size()), T{}) {
    for (size_t i = 0; i < size_; ++i) data_[i] = values[i];
  }
  ~DeviceBuffer() { std::free(data_); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::vector<T> ToVector() const { return std::vector<T>(data_, data_ + size_); }

 private:
  size_t size_;
  T* data_ = nullptr;
};

}  // namespace tern::kernels
