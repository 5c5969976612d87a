// Memory for weights, in huge pages where the system gives them: a token reads every weight once,
// and with pages of 4 KiB the walks of the page table cost up to a third of the memory bandwidth.
// Many arrays share a slab, so that small matrices lie in huge pages, too. Freed slabs go back to
// the system.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace tern {

// `bytes` bytes, aligned to 64. Throws std::bad_alloc. Thread-safe.
void* AllocateHugePages(size_t bytes);
// Of AllocateHugePages.
void FreeHugePages(void* p) noexcept;

template <class T>
struct HugePageAllocator {
  using value_type = T;
  HugePageAllocator() = default;
  template <class U>
  HugePageAllocator(const HugePageAllocator<U>&) {}  // NOLINT: allocators convert
  T* allocate(size_t n) { return static_cast<T*>(AllocateHugePages(n * sizeof(T))); }
  void deallocate(T* p, size_t) noexcept { FreeHugePages(p); }
  template <class U>
  bool operator==(const HugePageAllocator<U>&) const {
    return true;
  }
};

template <class T>
using HugePageVector = std::vector<T, HugePageAllocator<T>>;

}  // namespace tern
