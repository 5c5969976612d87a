// Threads and memory of the process, set once before any tensor exists.
#pragma once

#include <cstdint>

namespace tern::cli {

// libtorch's threads; 0: all processors that this process may use. Also tells the C library to keep
// freed memory, because every step allocates the same tensors again (measured: page faults cost
// several percent of a step).
void SetThreads(int64_t threads);

}  // namespace tern::cli
