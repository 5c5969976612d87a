// The collectives of a warp that move words: barrier, shuffles, votes. All 32 lanes must come;
// operands such as a shuffle's distance are each lane's own.
#include <cstdio>

#include "kernels/simt/machine.h"

namespace tern::simt {
namespace {

constexpr unsigned kLanes = kWarpLanes;

// Words: 0 and 1 the value, 2 the distance, mask or lane.
void MoveFrom(WarpSlots& slots, unsigned lane, unsigned source) {
  slots.out[lane][0] = slots.in[source][0];
  slots.out[lane][1] = slots.in[source][1];
}

void StepNothing(WarpSlots&) {}

void StepDown(WarpSlots& slots) {
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    const unsigned delta = slots.in[lane][2];
    MoveFrom(slots, lane, delta < kLanes - lane ? lane + delta : lane);
  }
}

void StepXor(WarpSlots& slots) {
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    MoveFrom(slots, lane, (lane ^ slots.in[lane][2]) % kLanes);
  }
}

void StepIndex(WarpSlots& slots) {
  for (unsigned lane = 0; lane < kLanes; ++lane) MoveFrom(slots, lane, slots.in[lane][2] % kLanes);
}

void StepBallot(WarpSlots& slots) {
  uint32_t votes = 0;
  for (unsigned lane = 0; lane < kLanes; ++lane) votes |= slots.in[lane][0] << lane;
  for (unsigned lane = 0; lane < kLanes; ++lane) slots.out[lane][0] = votes;
}

constexpr WarpOperation kBarrier{"__syncwarp", 0, 0, StepNothing};
constexpr WarpOperation kDown{"__shfl_down_sync", 3, 2, StepDown};
constexpr WarpOperation kXor{"__shfl_xor_sync", 3, 2, StepXor};
constexpr WarpOperation kIndex{"__shfl_sync", 3, 2, StepIndex};
constexpr WarpOperation kBallot{"a vote", 1, 1, StepBallot};

uint64_t MoveWords(const WarpOperation& operation, uint64_t value, uint32_t operand) {
  const uint32_t in[3] = {static_cast<uint32_t>(value), static_cast<uint32_t>(value >> 32),
                          operand};
  uint32_t out[2] = {};
  MeetWarp(operation, in, out);
  return out[0] | static_cast<uint64_t>(out[1]) << 32;
}

}  // namespace

void MeetWarp(const WarpOperation& operation, const uint32_t* in, uint32_t* out,
              bool orders_memory) {
  Slot& slot = RunningSlot();
  Thread& self = *slot.current;
  const int lane = self.linear % kWarpLanes, first = self.linear - lane;
  Warp& warp = slot.warps[static_cast<size_t>(self.linear / kWarpLanes)];
  char text[160];
  if (warp.live != kWarpLanes) {
    std::snprintf(text, sizeof(text), "%s in a warp of which lanes have ended", operation.name);
    Fail(text);
  }
  if (warp.arrived > 0 && warp.operation != &operation) {
    std::snprintf(text, sizeof(text), "lanes of a warp meet in different collectives: %s and %s",
                  operation.name, warp.operation->name);
    Fail(text);
  }
  char* tag = &warp.tags[self.warp_epoch++ & 1];
  if (orders_memory) TsanRelease(tag);
  warp.operation = &operation;
  for (int i = 0; i < operation.in_words; ++i) warp.slots.in[lane][i] = in[i];
  if (++warp.arrived == kWarpLanes) {
    warp.arrived = 0;
    ++slot.grid->stats.warp_collectives;
    {
      const TsanIgnores ignores;  // The steps' memcpy is seen by TSan: built with -fno-builtin.
      operation.step(warp.slots);
    }
    for (int i = first; i < first + kWarpLanes; ++i) {
      Thread& thread = slot.threads[static_cast<size_t>(i)];
      if (thread.state == State::kAtWarp) thread.state = State::kReady;
    }
  } else {
    Wait(State::kAtWarp);
  }
  if (orders_memory) TsanAcquire(tag);
  // No lane can overwrite `out` before all have read it: that takes all 32 lanes to arrive again.
  for (int i = 0; i < operation.out_words; ++i) out[i] = warp.slots.out[lane][i];
}

void WarpBarrier() { MeetWarp(kBarrier, nullptr, nullptr, /*orders_memory=*/true); }

uint64_t ShuffleDown(uint64_t value, unsigned delta) { return MoveWords(kDown, value, delta); }
uint64_t ShuffleXor(uint64_t value, unsigned mask) { return MoveWords(kXor, value, mask); }
uint64_t ShuffleIndex(uint64_t value, unsigned lane) { return MoveWords(kIndex, value, lane); }

uint32_t BallotWarp(bool predicate) {
  const uint32_t in = predicate ? 1 : 0;
  uint32_t out = 0;
  MeetWarp(kBallot, &in, &out);
  return out;
}

void RequireFullMask(uint32_t mask, const char* operation) {
  if (mask == kFullMask) return;
  char text[160];
  std::snprintf(text, sizeof(text), "%s with the partial mask 0x%08X: only whole warps are run",
                operation, mask);
  Fail(text);
}

}  // namespace tern::simt
