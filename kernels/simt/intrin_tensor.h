// Tensor-core steps, matrix loads, asynchronous copies and dynamic shared memory: PTX under nvcc
// (sm_80 and later), the emulator's functions elsewhere. Fragments lie over the lanes as in the PTX
// manual; simt/mma.cc writes the maps down.
#pragma once

#include "kernels/simt/intrin.h"

#if !defined(__CUDACC__) && defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace tern::simt {

// The block's dynamic shared memory, aligned to 16 bytes; its size is the launch's.
TERN_DEVICE uint8_t* DynamicShared() {
#if defined(__CUDACC__)
  extern __shared__ uint4 tern_dynamic_shared[];
  return reinterpret_cast<uint8_t*>(tern_dynamic_shared);
#else
  return DynamicSharedMemory();
#endif
}

// Counted accesses to shared memory. REQUIRES: p aligned to the size of the access.
TERN_DEVICE uint32_t LoadShared32(const void* p TERN_SITE) {
#if !defined(__CUDACC__)
  if (reinterpret_cast<uintptr_t>(p) % 4 != 0) Fail("a 32-bit load is not aligned");
  TERN_RECORD(kSharedLoad, p, 4);
#endif
  return *static_cast<const uint32_t*>(p);
}

TERN_DEVICE Words4 LoadShared128(const void* p TERN_SITE) {
#if defined(__CUDACC__)
  const uint4 v = *static_cast<const uint4*>(p);  // A struct of our own is copied word by word.
  return {{v.x, v.y, v.z, v.w}};
#else
  if (reinterpret_cast<uintptr_t>(p) % 16 != 0) {
    Fail("a 128-bit load of shared memory is not aligned to 16 bytes");
  }
  TERN_RECORD(kSharedLoad, p, 16);
  return *static_cast<const Words4*>(p);
#endif
}

// 4 bytes from global memory that no one writes during the kernel.
TERN_DEVICE uint32_t LoadConstant32(const void* p TERN_SITE) {
#if defined(__CUDACC__)
  return __ldg(static_cast<const unsigned*>(p));
#else
  if (reinterpret_cast<uintptr_t>(p) % 4 != 0) Fail("a 32-bit load is not aligned");
  TERN_RECORD(kGlobalLoad, p, 4);
  uint32_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
#endif
}

// c (16 x 8, int32) += a (16 x 32, signed bytes) * b (32 x 8, signed bytes).
TERN_DEVICE void MultiplyS8(int (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};\n"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  uint32_t words[4];
  std::memcpy(words, c, sizeof(words));
  MatrixMultiplyInt8(MatrixType::kS8, a, b, words);
  std::memcpy(c, words, sizeof(words));
#endif
}

// The same with unsigned bytes in a.
TERN_DEVICE void MultiplyU8S8(int (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};\n"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  uint32_t words[4];
  std::memcpy(words, c, sizeof(words));
  MatrixMultiplyInt8(MatrixType::kU8, a, b, words);
  std::memcpy(c, words, sizeof(words));
#endif
}

// c (16 x 8, fp32) += a (16 x 16) * b (16 x 8), both fp16.
TERN_DEVICE void MultiplyF16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  uint32_t words[4];
  std::memcpy(words, c, sizeof(words));
  MatrixMultiplyFloat16(MatrixType::kF16, a, b, words);
  std::memcpy(c, words, sizeof(words));
#endif
}

// The same with bfloat16.
TERN_DEVICE void MultiplyBf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  uint32_t words[4];
  std::memcpy(words, c, sizeof(words));
  MatrixMultiplyFloat16(MatrixType::kBf16, a, b, words);
  std::memcpy(c, words, sizeof(words));
#endif
}

// ldmatrix: kMatrices (1, 2 or 4) matrices of 8 x 8 16-bit elements from shared memory. Lane 8 i +
// j gives the address of row j of matrix i, aligned to 16 bytes; other lanes' addresses are
// ignored.
template <int kMatrices, bool kTransposed = false>
TERN_DEVICE void LoadMatrix(uint32_t (&out)[kMatrices], const void* row TERN_SITE) {
  static_assert(kMatrices == 1 || kMatrices == 2 || kMatrices == 4);
#if defined(__CUDACC__)
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (kMatrices == 4 && kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kMatrices == 4) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kMatrices == 2 && kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];\n"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kMatrices == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];\n"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];\n"
                 : "=r"(out[0])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];\n"
                 : "=r"(out[0])
                 : "r"(address)
                 : "memory");
  }
#else
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  if (static_cast<int>(thread % 32) >= 8 * kMatrices) {
    LoadMatrices(kMatrices, kTransposed, nullptr, out);
    return;
  }
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) {
    Fail("a row of ldmatrix is not aligned to 16 bytes");
  }
  TERN_RECORD(kSharedLoad, row, 16);
  uint8_t bytes[16];
  std::memcpy(bytes, row, sizeof(bytes));  // Here and not in the runtime: TSan and ASan see it.
  LoadMatrices(kMatrices, kTransposed, bytes, out);
#endif
}

// cp.async of 16 bytes from global (`from`) to shared memory (`to`), both aligned to 16 bytes, past
// the L1 cache. Without `valid` 16 zeros are written and `from` is not read. In the emulator the
// destination is poison (0xFF; under ASan a read stops) until this thread waits for the copy.
TERN_DEVICE void CopyAsync16(void* to, const void* from, bool valid TERN_SITE) {
#if defined(__CUDACC__)
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(from),
               "r"(bytes)
               : "memory");
#else
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0) {
    Fail("the destination of cp.async is not aligned to 16 bytes");
  }
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0) {
    Fail("the source of cp.async is not aligned to 16 bytes");
  }
  AsyncCopy copy;
  copy.to = to;
  if (valid) {
    TERN_RECORD(kGlobalLoad, from, 16);
    std::memcpy(copy.bytes, from, 16);
  }
  TERN_RECORD(kSharedStore, to, 16);
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(to, 16);  // A second copy to the same place is the kernel's affair.
#endif
  std::memset(to, 0xFF, 16);
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(to, 16);
#endif
  IssueAsyncCopy(copy);
#endif
}

// Ends a group of this thread's copies; a group may be empty.
TERN_DEVICE void CommitCopies() {
#if defined(__CUDACC__)
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#else
  CommitAsyncCopies();
#endif
}

// Until at most kKeep of this thread's latest groups are under way. Other threads see the bytes
// only after a barrier.
template <int kKeep>
TERN_DEVICE void WaitForCopies() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kKeep) : "memory");
#else
  AsyncCopy copy;
  while (TakeAsyncCopy(kKeep, &copy)) {
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(copy.to, 16);
#endif
    std::memcpy(copy.to, copy.bytes, 16);
  }
#endif
}

}  // namespace tern::simt
