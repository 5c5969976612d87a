// The emulator's scheduler: runs the fibers of one block. A fiber runs until it waits for its block
// or its warp, or ends; the last to arrive releases the others. machine.h explains the rest.
#include "kernels/simt/simt.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "kernels/simt/machine.h"

namespace tern::simt {
namespace {

namespace context = boost::context::detail;

void FiberMain(context::transfer_t transfer) {
  Slot& slot = *CurrentSlot();
  slot.scheduler = transfer.fctx;
  AfterFirstSwitchToFiber(slot.marks);
  TsanAcquire(&slot.start_tag);
  (*slot.grid->kernel)();
  if (!slot.current->copies.empty()) Fail("a thread ends with a cp.async that it did not wait for");
  TsanRelease(&slot.end_tag);
  Wait(State::kDone);
  std::abort();  // A finished fiber is never resumed.
}

void Resume(Slot& slot, Thread& thread) {
  slot.current = &thread;
  ++slot.grid->stats.switches;
  BeforeSwitchToFiber(thread.marks, slot.marks, thread.stack, kStackBytes);
  thread.fiber = context::jump_fcontext(thread.fiber, nullptr).fctx;
  AfterSwitchToScheduler(slot.marks);
  slot.current = nullptr;
}

void Shuffle(Slot& slot) {
  for (int i = slot.count - 1; i > 0; --i) {
    const auto j = NextRandom(*slot.grid, static_cast<uint32_t>(i + 1));
    std::swap(slot.order[static_cast<size_t>(i)], slot.order[j]);
  }
}

void Prepare(Slot& slot) {
  const Dim3& block = slot.grid->block;
  slot.live = slot.count;
  slot.at_block = 0;
  for (Warp& warp : slot.warps) {
    warp.arrived = 0;
    warp.live = kWarpLanes;
  }
  for (int i = 0; i < slot.count; ++i) {
    Thread& thread = slot.threads[static_cast<size_t>(i)];
    const unsigned linear = static_cast<unsigned>(i);
    thread.linear = i;
    thread.index = {linear % block.x, linear / block.x % block.y, linear / (block.x * block.y)};
    thread.state = State::kReady;
    thread.block_epoch = thread.warp_epoch = 0;
    thread.copies.clear();
    thread.committed_groups = 0;
    thread.fiber = context::make_fcontext(static_cast<char*>(thread.stack) + kStackBytes,
                                          kStackBytes, FiberMain);
  }
  slot.shared_count = 0;
  // NaN as floats, -1 as integers: what was not written shows.
  if (slot.dynamic_shared != nullptr) {
    std::memset(slot.dynamic_shared, 0xFF,
                static_cast<size_t>(slot.grid->options.dynamic_shared_bytes));
  }
}

// Names a thread that others wait for.
[[noreturn]] void FailDeadlock(Slot& slot) {
  char text[160];
  for (Thread& thread : slot.threads) {
    const Warp& warp = slot.warps[static_cast<size_t>(thread.linear / kWarpLanes)];
    if (thread.state == State::kAtBlock && warp.arrived > 0) {
      slot.current = &thread;
      std::snprintf(text, sizeof(text), "deadlock: waits at a barrier while its warp waits in %s",
                    warp.operation->name);
      Fail(text);
    }
  }
  for (Thread& thread : slot.threads) {
    if (thread.state == State::kAtWarp) slot.current = &thread;
  }
  Fail("deadlock: threads wait in different places");
}

void AfterRun(Slot& slot, Thread& thread) {
  if (thread.state != State::kDone) return;
  --slot.live;
  Warp& warp = slot.warps[static_cast<size_t>(thread.linear / kWarpLanes)];
  --warp.live;
  slot.current = &thread;  // For the message.
  if (warp.arrived > 0) {
    char text[160];
    std::snprintf(text, sizeof(text), "a thread ended while lanes of its warp wait for it in %s",
                  warp.operation->name);
    Fail(text);
  }
  if (slot.at_block > 0) Fail("a thread ended while threads of its block wait at a barrier");
  slot.current = nullptr;
}

}  // namespace

uint32_t NextRandom(LaunchState& grid, uint32_t below) {
  grid.random = grid.random * 1664525u + 1013904223u;
  return (grid.random >> 8) % below;
}

Slot*& CurrentSlot() {
  static thread_local Slot* slot = nullptr;
  return slot;
}

Slot& RunningSlot() {
  if (CurrentSlot() == nullptr) Fail("device code called outside a launch");
  return *CurrentSlot();
}

void Wait(State state) {
  Slot& slot = *CurrentSlot();
  Thread& self = *slot.current;
  self.state = state;
  BeforeSwitchToScheduler(self.marks, slot.marks, state == State::kDone);
  slot.scheduler = context::jump_fcontext(slot.scheduler, nullptr).fctx;
  AfterSwitchToFiber(self.marks, slot.marks);
}

void RunBlock(Slot& slot, Dim3 block_index) {
  constexpr uint32_t kThreadsATurn = 64;  // On average, in a shuffled schedule of several blocks.
  LaunchState& grid = *slot.grid;
  slot.block_index = block_index;
  Prepare(slot);
  TsanRelease(&slot.start_tag);
  while (slot.live > 0) {
    bool progress = false;
    if (grid.options.shuffle) Shuffle(slot);
    for (int i = 0; i < slot.count; ++i) {
      Thread& thread = slot.threads[static_cast<size_t>(slot.order[static_cast<size_t>(i)])];
      if (thread.state != State::kReady) continue;
      progress = true;
      Resume(slot, thread);
      AfterRun(slot, thread);
      if (grid.pass_turn && grid.options.shuffle && NextRandom(grid, kThreadsATurn) == 0) {
        grid.pass_turn(slot.number);
      }
    }
    if (!progress) FailDeadlock(slot);
    if (grid.pass_turn) grid.pass_turn(slot.number);
  }
  TsanAcquire(&slot.end_tag);
}

const Dim3& ThreadIndex() { return RunningSlot().current->index; }
const Dim3& BlockIndex() { return RunningSlot().block_index; }
const Dim3& BlockShape() { return RunningSlot().grid->block; }
const Dim3& GridShape() { return RunningSlot().grid->grid; }

uint8_t* DynamicSharedMemory() {
  Slot& slot = RunningSlot();
  if (slot.dynamic_shared == nullptr) Fail("the launch gave no dynamic shared memory");
  return slot.dynamic_shared;
}

void BlockBarrier() {
  Slot& slot = RunningSlot();
  if (slot.grid->options.skip_block_barriers) return;
  if (slot.live != slot.count) Fail("a barrier after threads of the block have ended");
  char* tag = &slot.barrier_tags[slot.current->block_epoch++ & 1];
  TsanRelease(tag);
  if (++slot.at_block == slot.count) {
    slot.at_block = 0;
    ++slot.grid->stats.block_barriers;
    for (Thread& thread : slot.threads) {
      if (thread.state == State::kAtBlock) thread.state = State::kReady;
    }
  } else {
    Wait(State::kAtBlock);
  }
  TsanAcquire(tag);
}

void PoisonShared(void* memory, size_t size_bytes) {
  Slot& slot = RunningSlot();
  for (size_t i = 0; i < slot.shared_count; ++i)
    if (slot.shared[i] == memory) return;
  if (slot.shared_count == slot.shared.size()) Fail("more than 64 static shared arrays");
  slot.shared[slot.shared_count++] = memory;
  // Byte by byte: TSan sees memset, and it is no write of the kernel.
  auto* bytes = static_cast<volatile uint8_t*>(memory);
  for (size_t i = 0; i < size_bytes; ++i) bytes[i] = 0xFF;
}

void IssueAsyncCopy(const AsyncCopy& copy) {
  Slot& slot = RunningSlot();
  ++slot.grid->stats.async_copies;
  const TsanIgnores ignores;
  slot.current->copies.push_back(copy);
  slot.current->copies.back().group = slot.current->committed_groups;
}

void CommitAsyncCopies() { ++RunningSlot().current->committed_groups; }

bool TakeAsyncCopy(int keep, AsyncCopy* copy) {
  Thread& self = *RunningSlot().current;
  if (self.copies.empty() || self.copies.front().group >= self.committed_groups - keep) {
    return false;
  }
  const TsanIgnores ignores;
  *copy = self.copies.front();
  self.copies.pop_front();
  return true;
}

void Fail(const char* what) {
  const Slot* slot = CurrentSlot();
  if (slot != nullptr && slot->current != nullptr) {
    const Dim3& b = slot->block_index;
    std::fprintf(stderr, "simt: %s (block %u %u %u, thread %d)\n", what, b.x, b.y, b.z,
                 slot->current->linear);
  } else {
    std::fprintf(stderr, "simt: %s\n", what);
  }
  std::abort();
}

}  // namespace tern::simt
