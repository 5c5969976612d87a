// The only file with two bodies: device intrinsics under nvcc, the emulator's functions elsewhere.
// A kernel includes this, reads as ordinary CUDA, and uses no inline assembly of its own.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define TERN_DEVICE __device__ __forceinline__
#define TERN_UNROLL _Pragma("unroll")  // g++ does not know the plain pragma.
#else
#include <atomic>
#include <cstring>

#include "kernels/simt/simt.h"
#define TERN_DEVICE inline
#define TERN_UNROLL
#define __global__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define threadIdx (::tern::simt::ThreadIndex())
#define blockIdx (::tern::simt::BlockIndex())
#define blockDim (::tern::simt::BlockShape())
#define gridDim (::tern::simt::GridShape())
#endif

namespace tern::simt {

struct alignas(16) Words4 {
  uint32_t word[4];
};

// 16 bytes from global memory that no one writes during the kernel. REQUIRES: p aligned to 16
// bytes.
TERN_DEVICE Words4 LoadConstant128(const void* p) {
#if defined(__CUDACC__)
  const uint4 v = __ldg(reinterpret_cast<const uint4*>(p));
  return {{v.x, v.y, v.z, v.w}};
#else
  if (reinterpret_cast<uintptr_t>(p) % 16 != 0) Fail("a 128-bit load is not aligned to 16 bytes");
  Words4 v;
  std::memcpy(&v, p, sizeof(v));
  return v;
#endif
}

// acc + the sum of the four products of signed bytes.
TERN_DEVICE int DotBytes(uint32_t a, uint32_t b, int acc) {
#if defined(__CUDACC__)
  return __dp4a(static_cast<int>(a), static_cast<int>(b), acc);
#else
  for (int shift = 0; shift < 32; shift += 8) {
    acc += static_cast<int8_t>(a >> shift) * static_cast<int8_t>(b >> shift);
  }
  return acc;
#endif
}

// The value of lane + delta of the warp; all 32 lanes must call it.
TERN_DEVICE int ShuffleDownInt(int value, unsigned delta) {
#if defined(__CUDACC__)
  return __shfl_down_sync(0xFFFFFFFFu, value, delta);
#else
  return static_cast<int>(static_cast<uint32_t>(ShuffleDown(static_cast<uint32_t>(value), delta)));
#endif
}

TERN_DEVICE float ShuffleDownFloat(float value, unsigned delta) {
#if defined(__CUDACC__)
  return __shfl_down_sync(0xFFFFFFFFu, value, delta);
#else
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits = static_cast<uint32_t>(ShuffleDown(bits, delta));
  std::memcpy(&value, &bits, sizeof(bits));
  return value;
#endif
}

// The value of lane ^ mask of the warp; all 32 lanes must call it.
TERN_DEVICE int ShuffleXorInt(int value, unsigned mask) {
#if defined(__CUDACC__)
  return __shfl_xor_sync(0xFFFFFFFFu, value, mask);
#else
  return static_cast<int>(static_cast<uint32_t>(ShuffleXor(static_cast<uint32_t>(value), mask)));
#endif
}

TERN_DEVICE float ShuffleXorFloat(float value, unsigned mask) {
#if defined(__CUDACC__)
  return __shfl_xor_sync(0xFFFFFFFFu, value, mask);
#else
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits = static_cast<uint32_t>(ShuffleXor(bits, mask));
  std::memcpy(&value, &bits, sizeof(bits));
  return value;
#endif
}

// How many bits are set.
TERN_DEVICE int CountBits(uint32_t bits) {
#if defined(__CUDACC__)
  return __popc(bits);
#else
  return __builtin_popcount(bits);
#endif
}

// *sum += value, whole, and ordering nothing else.
TERN_DEVICE void AddAtomically(int64_t* sum, int64_t value) {
#if defined(__CUDACC__)
  atomicAdd(reinterpret_cast<unsigned long long*>(sum), static_cast<unsigned long long>(value));
#else
  std::atomic_ref<int64_t>(*sum).fetch_add(value, std::memory_order_relaxed);
#endif
}

// Every thread of the block arrives before any goes on; shared memory written before is seen after.
TERN_DEVICE void SyncBlock() {
#if defined(__CUDACC__)
  __syncthreads();
#else
  BlockBarrier();
#endif
}

}  // namespace tern::simt
