// A buffer a thread for kernels that unpack: grown on demand and kept, because kernels are called
// thousands of times a second. One kernel at a time uses it: a kernel must not call another that
// does while it holds the pointer.
#pragma once

#include <cstdint>

namespace tern::kernels {

// At least `bytes` bytes, aligned to 64; contents undefined. Throws std::bad_alloc.
uint8_t* ThreadBuffer(int64_t bytes);

}  // namespace tern::kernels
