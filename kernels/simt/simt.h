// Runs CUDA kernels on a CPU without a GPU: one fiber a CUDA thread, block after block, warp after
// warp. It is for proving kernels right, not for speed. What it finds: wrong results, barriers that
// not every thread reaches, lanes of a warp that meet in different collectives, misaligned wide
// loads, out-of-bounds accesses (under ASan), and data races between threads of a block (under
// TSan: each CUDA thread is a TSan fiber, and only barriers order them).
//
// What it does not show: the hardware's memory model, lock-step effects, races between blocks
// (blocks are ordered here), and any speed. Rules for kernels: whole warps; full masks; static
// __shared__ only; launches through simt::Launch. Misuse aborts with block and thread, because a
// fiber cannot be unwound from inside a kernel. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>

namespace tern::simt {

inline constexpr int kWarpLanes = 32;

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

struct LaunchOptions {
  // Threads that can run do so in thread order, or in a new pseudo-random order each round.
  bool shuffle = false;
  uint32_t seed = 1;
  // Fault injection: __syncthreads does nothing. A test that a kernel's result depends on its
  // barriers, and that the race detector sees their absence.
  bool skip_block_barriers = false;
};

struct LaunchStats {
  int64_t switches = 0;          // Times a fiber was resumed.
  int64_t block_barriers = 0;    // Barriers passed, one a block.
  int64_t warp_collectives = 0;  // Shuffles and warp barriers, one a warp.
};

// Runs `kernel` once for each thread of the grid. REQUIRES: block.x * y * z a multiple of 32 and at
// most 1024.
LaunchStats Launch(Dim3 grid, Dim3 block, const std::function<void()>& kernel,
                   const LaunchOptions& options = {});

// For intrin.h: what a running CUDA thread sees and does.
const Dim3& ThreadIndex();
const Dim3& BlockIndex();
const Dim3& BlockShape();
const Dim3& GridShape();
void BlockBarrier();
void WarpBarrier();
// The value of lane + delta, or the own one beyond the warp.
uint64_t ShuffleDown(uint64_t value, unsigned delta);
// The value of lane ^ mask.
uint64_t ShuffleXor(uint64_t value, unsigned mask);
[[noreturn]] void Fail(const char* what);

}  // namespace tern::simt
