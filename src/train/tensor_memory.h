// Bytes of the tensors of this process, counted by libtorch's allocators: every request for a
// storage and its return, from all threads. Not counted: what is no tensor (libraries' own
// workspaces, token files, the program), and what the system adds to each request.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

namespace tern::train {

class TensorMemory {
 public:
  // Counts the CPU's from the first call on; what was allocated before stays uncounted. Not while
  // another thread makes tensors. A GPU's allocator counts by itself.
  static void Count();
  // Now; 0 before Count.
  static int64_t Bytes(const c10::Device& device = c10::kCPU);
  // The most since Count or RestartPeak.
  static int64_t PeakBytes(const c10::Device& device = c10::kCPU);
  // The peak is what there is now.
  static void RestartPeak(const c10::Device& device = c10::kCPU);
};

}  // namespace tern::train
