// The emulator's own state: threads, warps and the block that an OS thread runs. For kernels/simt
// only.
//
// These files are compiled without TSan instrumentation (kernels/CMakeLists.txt): their data is
// handed from fiber to fiber by construction. TSan learns the order of CUDA threads from the
// annotations alone:
//   - each fiber is a TSan fiber, switched to without an implied order;
//   - a barrier is a release and an acquire on one of two tags in turn (with one tag, a thread that
//     is already at barrier n + 1 would order itself with one that is still leaving barrier n, and
//     hide races);
//   - a shuffle, a vote or a matrix step orders nothing.
//
// Several resident blocks: each has an OS thread of its own, of which one runs at a time (launch.cc
// passes the turn). So `__shared__`, which is `static thread_local` here, is the block's own.
#pragma once

#include <array>
#include <boost/context/detail/fcontext.hpp>
#include <cstddef>
#include <deque>
#include <functional>
#include <vector>

#include "kernels/simt/sanitizers.h"
#include "kernels/simt/simt.h"

namespace tern::simt {

inline constexpr size_t kStackBytes = 256 << 10;  // Sanitized frames: several times plain ones.

enum class State { kReady, kAtWarp, kAtBlock, kDone };

struct Thread {
  boost::context::detail::fcontext_t fiber = nullptr;
  void* stack = nullptr;
  State state = State::kDone;
  Dim3 index;
  int linear = 0;
  unsigned block_epoch = 0, warp_epoch = 0;  // Barriers passed; their parity picks the TSan tag.
  std::deque<AsyncCopy> copies;              // Issued and not waited for.
  int64_t committed_groups = 0;
  FiberMarks marks;
};

// Words that the lanes bring to a collective and take from it.
struct WarpSlots {
  uint32_t in[kWarpLanes][12] = {};
  uint32_t out[kWarpLanes][4] = {};
};

struct WarpOperation {
  const char* name;
  int in_words, out_words;
  void (*step)(WarpSlots& slots);  // Run once, by the last lane to arrive.
};

struct Warp {
  const WarpOperation* operation = nullptr;  // What the waiting lanes wait in.
  int arrived = 0, live = 0;
  WarpSlots slots;
  char tags[2] = {};
};

class TrafficCounter;

// What all blocks of a launch share. One OS thread at a time touches it.
struct LaunchState {
  Dim3 grid, block;
  const std::function<void()>* kernel = nullptr;
  LaunchOptions options;
  LaunchStats stats;
  uint32_t random = 1;
  TrafficCounter* traffic = nullptr;
  std::function<void(int slot)> pass_turn;  // Empty with one resident block.
};

uint32_t NextRandom(LaunchState& grid, uint32_t below);

inline constexpr size_t kMostSharedArrays = 64;  // Static ones in a kernel

// A place for one block, with its fibers; used for one block after the other.
struct Slot {
  LaunchState* grid = nullptr;
  int number = 0;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<int> order;
  int count = 0, live = 0, at_block = 0;
  Dim3 block_index;
  uint8_t* dynamic_shared = nullptr;
  std::array<void*, kMostSharedArrays> shared = {};  // Static arrays that this block has met
  size_t shared_count = 0;
  Thread* current = nullptr;
  boost::context::detail::fcontext_t scheduler = nullptr;
  SchedulerMarks marks;
  char barrier_tags[2] = {}, start_tag = 0, end_tag = 0;
};

// The slot whose block this OS thread runs; null outside a launch.
Slot*& CurrentSlot();
// The same, or a stop.
Slot& RunningSlot();

// Runs one block to its end on this OS thread.
void RunBlock(Slot& slot, Dim3 block_index);
// Gives the processor back to the scheduler.
void Wait(State state);
// All lanes of the warp meet; `in` and `out` are this lane's words. A collective that orders memory
// is a barrier of the warp.
void MeetWarp(const WarpOperation& operation, const uint32_t* in, uint32_t* out,
              bool orders_memory = false);

}  // namespace tern::simt
