// See thread_buffer.h.
#include "kernels/common/thread_buffer.h"

#include <cstdlib>
#include <memory>
#include <new>

namespace tern::kernels {

uint8_t* ThreadBuffer(int64_t bytes) {
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  thread_local std::unique_ptr<uint8_t, Free> buffer;
  thread_local int64_t size = 0;
  if (size < bytes) {
    const int64_t rounded = (bytes + 4095) / 4096 * 4096;
    buffer.reset(static_cast<uint8_t*>(std::aligned_alloc(64, static_cast<size_t>(rounded))));
    size = buffer != nullptr ? rounded : 0;
    if (buffer == nullptr) throw std::bad_alloc();
  }
  return buffer.get();
}

}  // namespace tern::kernels
