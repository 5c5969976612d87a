// Device intrinsics under nvcc, the emulator's functions elsewhere: words, lanes, barriers,
// atomics. Only the intrin headers have two bodies (intrin_tensor.h: tensor cores and asynchronous
// copies). A kernel includes them, reads as ordinary CUDA, and uses no inline assembly of its own.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define TERN_DEVICE __device__ __forceinline__
#define TERN_UNROLL _Pragma("unroll")  // g++ does not know the plain pragma.
// A static array (or, without sizes, a variable) of the block in shared memory:
// TERN_SHARED(float, tile, [2][32]). The emulator fills it with 0xFF when a block first comes by.
#define TERN_SHARED(type, name, ...) __shared__ type name __VA_ARGS__
#define TERN_SITE
#define TERN_RECORD(kind, address, bytes)
#else
#include <atomic>
#include <cstring>
#include <source_location>

#include "kernels/simt/simt.h"
#define TERN_DEVICE inline
#define TERN_UNROLL
#define __global__ inline
#define __launch_bounds__(...)
// One copy a resident block: the emulator runs each on an OS thread of its own. ASan has no
// redzones around it; dynamic shared memory has.
#define __shared__ static thread_local
#define TERN_SHARED(type, name, ...) \
  __shared__ type name __VA_ARGS__;  \
  ::tern::simt::PoisonShared(&name, sizeof(name))
#define threadIdx (::tern::simt::ThreadIndex())
#define blockIdx (::tern::simt::BlockIndex())
#define blockDim (::tern::simt::BlockShape())
#define gridDim (::tern::simt::GridShape())
// The last parameter of an access that LaunchOptions::count_traffic counts by its source line.
#define TERN_SITE , std::source_location site = std::source_location::current()
#define TERN_RECORD(kind, address, bytes)                                                   \
  ::tern::simt::RecordAccess(::tern::simt::Traffic::kind, address, bytes, site.file_name(), \
                             static_cast<int>(site.line()))
#endif

namespace tern::simt {

struct alignas(16) Words4 {
  uint32_t word[4];
};

// 16 bytes from global memory that no one writes during the kernel. REQUIRES: p aligned to 16
// bytes.
TERN_DEVICE Words4 LoadConstant128(const void* p TERN_SITE) {
#if defined(__CUDACC__)
  const uint4 v = __ldg(reinterpret_cast<const uint4*>(p));
  return {{v.x, v.y, v.z, v.w}};
#else
  if (reinterpret_cast<uintptr_t>(p) % 16 != 0) Fail("a 128-bit load is not aligned to 16 bytes");
  TERN_RECORD(kGlobalLoad, p, 16);
  Words4 v;
  std::memcpy(&v, p, sizeof(v));
  return v;
#endif
}

struct alignas(8) Words2 {
  uint32_t word[2];
};

// 8 bytes to global memory. REQUIRES: p aligned to 8 bytes.
TERN_DEVICE void StoreGlobal64(void* p, const Words2& v TERN_SITE) {
#if defined(__CUDACC__)
  *static_cast<uint2*>(p) = make_uint2(v.word[0], v.word[1]);
#else
  if (reinterpret_cast<uintptr_t>(p) % 8 != 0) Fail("a 64-bit store is not aligned to 8 bytes");
  TERN_RECORD(kGlobalStore, p, 8);
  std::memcpy(p, &v, sizeof(v));
#endif
}

// 16 bytes to global memory. REQUIRES: p aligned to 16 bytes.
TERN_DEVICE void StoreGlobal128(void* p, const Words4& v TERN_SITE) {
#if defined(__CUDACC__)
  *static_cast<uint4*>(p) = make_uint4(v.word[0], v.word[1], v.word[2], v.word[3]);
#else
  if (reinterpret_cast<uintptr_t>(p) % 16 != 0) Fail("a 128-bit store is not aligned to 16 bytes");
  TERN_RECORD(kGlobalStore, p, 16);
  std::memcpy(p, &v, sizeof(v));
#endif
}

// Byte i of the result is the one that nibble i of `selector` (0 to 7) names: 0 to 3 of a, 4 to 7
// of b.
TERN_DEVICE uint32_t PermuteBytes(uint32_t a, uint32_t b, uint32_t selector) {
#if defined(__CUDACC__)
  return __byte_perm(a, b, selector);
#else
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  uint32_t out = 0;
  for (unsigned i = 0; i < 4; ++i) {
    out |= static_cast<uint32_t>(bytes >> (8 * (selector >> (4 * i) & 7)) & 0xFF) << (8 * i);
  }
  return out;
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

#if !defined(__CUDACC__)
TERN_DEVICE uint32_t BitsOf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

TERN_DEVICE float FloatOf(uint64_t bits) {
  const auto low = static_cast<uint32_t>(bits);
  float value;
  std::memcpy(&value, &low, sizeof(value));
  return value;
}

TERN_DEVICE int IntOf(uint64_t bits) { return static_cast<int>(static_cast<uint32_t>(bits)); }
#endif

// The value of lane + delta of the warp. All 32 lanes must call this and the intrinsics below; the
// emulator stops at a partial mask.
TERN_DEVICE int ShuffleDownInt(int value, unsigned delta, uint32_t mask = 0xFFFFFFFFu) {
#if defined(__CUDACC__)
  return __shfl_down_sync(mask, value, delta);
#else
  RequireFullMask(mask, "__shfl_down_sync");
  return IntOf(ShuffleDown(static_cast<uint32_t>(value), delta));
#endif
}

TERN_DEVICE float ShuffleDownFloat(float value, unsigned delta, uint32_t mask = 0xFFFFFFFFu) {
#if defined(__CUDACC__)
  return __shfl_down_sync(mask, value, delta);
#else
  RequireFullMask(mask, "__shfl_down_sync");
  return FloatOf(ShuffleDown(BitsOf(value), delta));
#endif
}

// The value of lane ^ other.
TERN_DEVICE int ShuffleXorInt(int value, unsigned other, uint32_t mask = 0xFFFFFFFFu) {
#if defined(__CUDACC__)
  return __shfl_xor_sync(mask, value, other);
#else
  RequireFullMask(mask, "__shfl_xor_sync");
  return IntOf(ShuffleXor(static_cast<uint32_t>(value), other));
#endif
}

TERN_DEVICE float ShuffleXorFloat(float value, unsigned other, uint32_t mask = 0xFFFFFFFFu) {
#if defined(__CUDACC__)
  return __shfl_xor_sync(mask, value, other);
#else
  RequireFullMask(mask, "__shfl_xor_sync");
  return FloatOf(ShuffleXor(BitsOf(value), other));
#endif
}

// The value of `lane`.
TERN_DEVICE int ShuffleInt(int value, unsigned lane, uint32_t mask = 0xFFFFFFFFu) {
#if defined(__CUDACC__)
  return __shfl_sync(mask, value, static_cast<int>(lane));
#else
  RequireFullMask(mask, "__shfl_sync");
  return IntOf(ShuffleIndex(static_cast<uint32_t>(value), lane));
#endif
}

TERN_DEVICE float ShuffleFloat(float value, unsigned lane, uint32_t mask = 0xFFFFFFFFu) {
#if defined(__CUDACC__)
  return __shfl_sync(mask, value, static_cast<int>(lane));
#else
  RequireFullMask(mask, "__shfl_sync");
  return FloatOf(ShuffleIndex(BitsOf(value), lane));
#endif
}

// Bit i: whether lane i of the warp says so.
TERN_DEVICE uint32_t Ballot(bool predicate, uint32_t mask = 0xFFFFFFFFu) {
#if defined(__CUDACC__)
  return __ballot_sync(mask, predicate);
#else
  RequireFullMask(mask, "__ballot_sync");
  return BallotWarp(predicate);
#endif
}

TERN_DEVICE bool AnyLane(bool predicate, uint32_t mask = 0xFFFFFFFFu) {
#if defined(__CUDACC__)
  return __any_sync(mask, predicate) != 0;
#else
  RequireFullMask(mask, "__any_sync");
  return BallotWarp(predicate) != 0;
#endif
}

TERN_DEVICE bool AllLanes(bool predicate, uint32_t mask = 0xFFFFFFFFu) {
#if defined(__CUDACC__)
  return __all_sync(mask, predicate) != 0;
#else
  RequireFullMask(mask, "__all_sync");
  return BallotWarp(predicate) == kFullMask;
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

// The same for int32 and fp32 in global or shared memory; returns the value before.
TERN_DEVICE int AddAtomically(int* sum, int value) {
#if defined(__CUDACC__)
  return atomicAdd(sum, value);
#else
  return std::atomic_ref<int>(*sum).fetch_add(value, std::memory_order_relaxed);
#endif
}

TERN_DEVICE float AddAtomically(float* sum, float value) {
#if defined(__CUDACC__)
  return atomicAdd(sum, value);
#else
  return std::atomic_ref<float>(*sum).fetch_add(value, std::memory_order_relaxed);
#endif
}

// Every lane of the warp arrives before any goes on; shared memory written before is seen after.
TERN_DEVICE void SyncWarp(uint32_t mask = 0xFFFFFFFFu) {
#if defined(__CUDACC__)
  __syncwarp(mask);
#else
  RequireFullMask(mask, "__syncwarp");
  WarpBarrier();
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
