// What the CUDA kernels share that work on a row of floats with one block of threads: four elements
// a thread and step through 128-bit loads where the address allows it, and a maximum and a sum over
// the block. Addition and multiplication are written plainly: the library is compiled with
// -fmad=false (kernels/CMakeLists.txt) and scripts/check_sass.py refuses a fused one.
#pragma once

#include <cstdint>

#include "kernels/simt/intrin.h"

namespace tern::kernels {

// 256 threads of four elements take a row of 2,560 in three steps; fewer leave a single row (one
// token) waiting for its loads, more are idle on it.
inline constexpr int kRowThreads = 256;
inline constexpr int kRowWarps = kRowThreads / 32;
inline constexpr int kRowStep = 4 * kRowThreads;  // Elements that the block takes at once.

struct alignas(16) Floats4 {
  float value[4];
};

// p[0..3], of which `left` exist: the others read as 0 and are not touched.
TERN_DEVICE Floats4 LoadFourSingly(const float* p, int left) {
  Floats4 v = {{0.0f, 0.0f, 0.0f, 0.0f}};
  TERN_UNROLL
  for (int j = 0; j < 4; ++j) {
    if (j < left) v.value[j] = p[j];
  }
  return v;
}

// The same, one load where the address allows it. For data that the kernel does not write.
TERN_DEVICE Floats4 LoadFour(const float* p, int left) {
  if (left < 4 || reinterpret_cast<uintptr_t>(p) % 16 != 0) return LoadFourSingly(p, left);
  Floats4 v;
  const simt::Words4 words = simt::LoadConstant128(p);
  memcpy(&v, &words, sizeof(v));
  return v;
}

// The same for data that this thread, and no other, may write later.
TERN_DEVICE Floats4 LoadFourMutable(const float* p, int left) {
  if (left < 4 || reinterpret_cast<uintptr_t>(p) % 16 != 0) return LoadFourSingly(p, left);
  return *reinterpret_cast<const Floats4*>(p);
}

// p[0..3] = v, one store where the address allows it.
TERN_DEVICE void StoreFour(float* p, const Floats4& v, int left) {
  if (left >= 4 && reinterpret_cast<uintptr_t>(p) % 16 == 0) {
    *reinterpret_cast<Floats4*>(p) = v;
  } else {
    TERN_UNROLL
    for (int j = 0; j < 4; ++j) {
      if (j < left) p[j] = v.value[j];
    }
  }
}

// The maximum over the block, in every thread. REQUIRES: kRowThreads threads, all of them; a
// barrier between two calls.
TERN_DEVICE float MaxOfBlock(float value) {
  TERN_SHARED(float, partial, [kRowWarps]);
  TERN_UNROLL
  for (unsigned mask = 16; mask > 0; mask /= 2) {
    value = fmaxf(value, simt::ShuffleXorFloat(value, mask));
  }
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  simt::SyncBlock();
  TERN_UNROLL
  for (int i = 0; i < kRowWarps; ++i) value = fmaxf(value, partial[i]);
  return value;
}

// The sum over the block, in every thread; the same conditions.
TERN_DEVICE int SumOfBlock(int value) {
  TERN_SHARED(int, partial, [kRowWarps]);
  TERN_UNROLL
  for (unsigned mask = 16; mask > 0; mask /= 2) value += simt::ShuffleXorInt(value, mask);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  simt::SyncBlock();
  int sum = 0;
  TERN_UNROLL
  for (int i = 0; i < kRowWarps; ++i) sum += partial[i];
  return sum;
}

}  // namespace tern::kernels
