// Bytes of the tensors of this process, counted by libtorch's CPU allocator: every request for a
// storage and its return, from all threads. Not counted: what is no tensor (libraries' own
// workspaces, token files, the program), and what the system adds to each request.
#pragma once

#include <cstdint>

namespace tern::train {

class TensorMemory {
 public:
  // Counts from the first call on; what was allocated before stays uncounted. Not while another
  // thread makes tensors.
  static void Count();
  static int64_t Bytes();      // Now; 0 before Count
  static int64_t PeakBytes();  // The most since Count or RestartPeak
  static void RestartPeak();   // The peak is what there is now
};

}  // namespace tern::train
