// Threads and memory of the process, set before any tensor exists.
#pragma once

#include <cstdint>

namespace tern::cli {

// libtorch's threads, whatever OMP_NUM_THREADS says (torchrun sets it to 1); 0: as many as this
// process may use processors. Also tells the C library to keep freed memory, because every step
// allocates the same tensors again (measured: page faults cost several percent of a step), and has
// MKL choose its kernels before several threads ask for them.
void SetThreads(int64_t threads);

// From now on blocks of 16 MiB and more go back to the system when they are freed: for jobs that
// hold one large matrix after the other and are to take little memory.
void GiveBackLargeBlocks();

}  // namespace tern::cli
