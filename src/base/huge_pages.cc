// See huge_pages.h. A slab is one anonymous mapping that is handed out from its start to its end;
// it is unmapped when its last array is freed. Pages that no array has touched cost nothing.
#include "base/huge_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <mutex>

namespace tern {
namespace {

constexpr size_t kHugePage = 2 << 20;
constexpr size_t kSlabBytes = 64 << 20;

size_t RoundUp(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

class Slabs {
 public:
  void* Allocate(size_t bytes) {
    bytes = RoundUp(std::max<size_t>(bytes, 1), 64);
    std::lock_guard lock(mutex_);
    auto slab = slabs_.find(current_);
    if (slab == slabs_.end() || slab->second.size - slab->second.used < bytes) {
      slab = Map(std::max(RoundUp(bytes, kHugePage), kSlabBytes));
      if (bytes <= kSlabBytes / 2) MakeCurrent(slab->first);
    }
    void* p = reinterpret_cast<void*>(slab->first + slab->second.used);
    slab->second.used += bytes;
    ++slab->second.arrays;
    return p;
  }

  void Free(void* p) noexcept {
    std::lock_guard lock(mutex_);
    auto slab = slabs_.upper_bound(reinterpret_cast<uintptr_t>(p));
    if (slab == slabs_.begin()) return;
    --slab;
    if (--slab->second.arrays == 0 && slab->first != current_) Unmap(slab);
  }

 private:
  struct Slab {
    size_t size = 0, used = 0;
    int64_t arrays = 0;  // Not freed yet
  };
  using Iterator = std::map<uintptr_t, Slab>::iterator;

  // A new slab whose start is a huge page.
  Iterator Map(size_t size) {
    void* mapping = mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) throw std::bad_alloc();
    const auto begin = reinterpret_cast<uintptr_t>(mapping);
    const uintptr_t start = RoundUp(begin, kHugePage);
    if (start > begin) munmap(mapping, start - begin);
    if (start - begin < kHugePage)
      munmap(reinterpret_cast<void*>(start + size), kHugePage - (start - begin));
    madvise(reinterpret_cast<void*>(start), size, MADV_HUGEPAGE);  // Refused: plain pages, as right
    return slabs_.emplace(start, Slab{size, 0, 0}).first;
  }

  void Unmap(Iterator slab) noexcept {
    munmap(reinterpret_cast<void*>(slab->first), slab->second.size);
    slabs_.erase(slab);
  }

  void MakeCurrent(uintptr_t start) {
    const auto old = slabs_.find(current_);
    current_ = start;
    if (old != slabs_.end() && old->second.arrays == 0) Unmap(old);
  }

  std::mutex mutex_;
  std::map<uintptr_t, Slab> slabs_;  // By start
  uintptr_t current_ = 0;            // Where small arrays go
};

// Never destroyed: arrays with static lifetime may be freed after it would be.
Slabs& TheSlabs() {
  static Slabs* slabs = new Slabs;
  return *slabs;
}

}  // namespace

void* AllocateHugePages(size_t bytes) { return TheSlabs().Allocate(bytes); }
void FreeHugePages(void* p) noexcept { TheSlabs().Free(p); }

}  // namespace tern
