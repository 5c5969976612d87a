// See tensor_memory.h.
#include "train/tensor_memory.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <mutex>
#include <unordered_map>

#include "base/error.h"

namespace tern::train {
namespace {

struct Counts {
  std::mutex mutex;
  std::unordered_map<void*, int64_t> sizes;  // Guarded by mutex, as the two below
  int64_t bytes = 0, peak = 0;
};

// Never destroyed: tensors in static variables return their memory at the very end.
Counts& TheCounts() {
  static Counts* const counts = new Counts;
  return *counts;
}

// libtorch's own allocator, with a count of what it gave.
class CountingAllocator : public c10::Allocator {
 public:
  explicit CountingAllocator(c10::Allocator* inner) : inner_(inner) {
    TERN_CHECK(inner_->raw_deleter() != nullptr, "the CPU allocator has contexts of its own");
    free_ = inner_->raw_deleter();
  }

  c10::DataPtr allocate(size_t size_bytes) override {
    void* const data = inner_->raw_allocate(size_bytes);
    if (data != nullptr) {
      Counts& counts = TheCounts();
      const std::lock_guard lock(counts.mutex);
      counts.sizes[data] = static_cast<int64_t>(size_bytes);
      counts.bytes += static_cast<int64_t>(size_bytes);
      counts.peak = std::max(counts.peak, counts.bytes);
    }
    return {data, data, &Free, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Free; }
  void copy_data(void* to, const void* from, size_t count) const override {
    default_copy_data(to, from, count);
  }

 private:
  static void Free(void* data) {
    if (data == nullptr) return;
    {
      Counts& counts = TheCounts();
      const std::lock_guard lock(counts.mutex);
      const auto found = counts.sizes.find(data);
      counts.bytes -= found->second;
      counts.sizes.erase(found);
    }
    free_(data);
  }

  c10::Allocator* inner_;
  static inline c10::DeleterFnPtr free_ = nullptr;  // Of the one allocator behind
};

c10::DeviceAllocator& AllocatorOf(const c10::Device& device) {
  return *c10::getDeviceAllocator(device.type());
}

c10::CachingAllocator::Stat AllocatedOn(const c10::Device& device) {
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return AllocatorOf(device).getDeviceStats(device.index()).allocated_bytes[kAll];
}

}  // namespace

void TensorMemory::Count() {
  static CountingAllocator* const allocator = [] {
    auto* made = new CountingAllocator(c10::GetCPUAllocator());
    c10::SetCPUAllocator(made, /*priority=*/1);
    return made;
  }();
  TERN_CHECK(c10::GetCPUAllocator() == allocator, "another allocator has taken its place");
}

int64_t TensorMemory::Bytes(const c10::Device& device) {
  if (!device.is_cpu()) return AllocatedOn(device).current;
  const std::lock_guard lock(TheCounts().mutex);
  return TheCounts().bytes;
}

int64_t TensorMemory::PeakBytes(const c10::Device& device) {
  if (!device.is_cpu()) return AllocatedOn(device).peak;
  const std::lock_guard lock(TheCounts().mutex);
  return TheCounts().peak;
}

void TensorMemory::RestartPeak(const c10::Device& device) {
  if (!device.is_cpu()) return AllocatorOf(device).resetPeakStats(device.index());
  const std::lock_guard lock(TheCounts().mutex);
  TheCounts().peak = TheCounts().bytes;
}

}  // namespace tern::train
