// The emulator: a scheduler on the caller's stack and one fiber (boost.context) a CUDA thread. A
// fiber runs until it waits for its block or its warp, or ends; the last to arrive releases the
// others.
//
// This file is compiled without TSan instrumentation (kernels/CMakeLists.txt): its own data is
// handed from fiber to fiber by construction. TSan learns the order of CUDA threads from the
// annotations alone:
//   - each fiber is a TSan fiber, switched to without an implied order;
//   - a barrier is a release and an acquire on one of two tags in turn (with one tag, a thread that
//   is already at barrier
//     n + 1 would order itself with one that is still leaving barrier n, and hide races);
//   - a shuffle orders nothing.
#include "kernels/simt/simt.h"

#include <sys/mman.h>

#include <boost/context/detail/fcontext.hpp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "kernels/simt/sanitizers.h"

namespace tern::simt {
namespace {

namespace context = boost::context::detail;

constexpr size_t kStackBytes = 256
                               << 10;  // Sanitized frames are several times larger than plain ones.
constexpr int kMaxThreads = 1024;

enum class State { kReady, kAtWarp, kAtBlock, kDone };

struct Thread {
  context::fcontext_t fiber = nullptr;
  void* stack = nullptr;
  State state = State::kDone;
  Dim3 index;
  int linear = 0;
  unsigned block_epoch = 0, warp_epoch = 0;  // Barriers passed; their parity picks the TSan tag.
  FiberMarks marks;
};

struct Warp {
  const char* operation = nullptr;  // What the waiting lanes wait in.
  int arrived = 0, live = 0;
  uint64_t in[kWarpLanes] = {}, out[kWarpLanes] = {};
  char tags[2] = {};
};

struct Machine {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<int> order;
  int count = 0, live = 0, at_block = 0;
  Dim3 grid, block, block_index;
  Thread* current = nullptr;
  context::fcontext_t scheduler = nullptr;
  SchedulerMarks marks;
  const std::function<void()>* kernel = nullptr;
  LaunchOptions options;
  LaunchStats stats;
  uint32_t random = 1;
  char barrier_tags[2] = {}, start_tag = 0, end_tag = 0;
};

Machine* machine = nullptr;  // The launch under way.

Machine& Running() {
  if (machine == nullptr) Fail("device code called outside a launch");
  return *machine;
}

// Gives the processor back to the scheduler.
void Wait(State state) {
  Machine& m = *machine;
  Thread& self = *m.current;
  self.state = state;
  BeforeSwitchToScheduler(self.marks, m.marks, state == State::kDone);
  m.scheduler = context::jump_fcontext(m.scheduler, nullptr).fctx;
  AfterSwitchToFiber(self.marks, m.marks);
}

void FiberMain(context::transfer_t transfer) {
  Machine& m = *machine;
  m.scheduler = transfer.fctx;
  AfterFirstSwitchToFiber(m.marks);
  TsanAcquire(&m.start_tag);
  (*m.kernel)();
  TsanRelease(&m.end_tag);
  Wait(State::kDone);
  std::abort();  // A finished fiber is never resumed.
}

void Resume(Thread& thread) {
  Machine& m = *machine;
  m.current = &thread;
  ++m.stats.switches;
  BeforeSwitchToFiber(thread.marks, m.marks, thread.stack, kStackBytes);
  thread.fiber = context::jump_fcontext(thread.fiber, nullptr).fctx;
  AfterSwitchToScheduler(m.marks);
  m.current = nullptr;
}

void Shuffle(Machine& m) {
  for (int i = m.count - 1; i > 0; --i) {
    m.random = m.random * 1664525u + 1013904223u;
    const int j = static_cast<int>((m.random >> 8) % static_cast<uint32_t>(i + 1));
    const int keep = m.order[i];
    m.order[i] = m.order[j];
    m.order[j] = keep;
  }
}

void Prepare(Machine& m) {
  m.live = m.count;
  m.at_block = 0;
  for (Warp& warp : m.warps) {
    warp.arrived = 0;
    warp.live = kWarpLanes;
  }
  for (int i = 0; i < m.count; ++i) {
    Thread& thread = m.threads[i];
    const unsigned linear = static_cast<unsigned>(i);
    thread.linear = i;
    thread.index = {linear % m.block.x, linear / m.block.x % m.block.y,
                    linear / (m.block.x * m.block.y)};
    thread.state = State::kReady;
    thread.block_epoch = thread.warp_epoch = 0;
    thread.fiber = context::make_fcontext(static_cast<char*>(thread.stack) + kStackBytes,
                                          kStackBytes, FiberMain);
  }
}

// Runs one block to its end.
void RunBlock(Machine& m) {
  Prepare(m);
  TsanRelease(&m.start_tag);
  while (m.live > 0) {
    bool progress = false;
    if (m.options.shuffle) Shuffle(m);
    for (int i = 0; i < m.count; ++i) {
      Thread& thread = m.threads[m.order[i]];
      if (thread.state != State::kReady) continue;
      progress = true;
      Resume(thread);
      if (thread.state != State::kDone) continue;
      --m.live;
      Warp& warp = m.warps[thread.linear / kWarpLanes];
      --warp.live;
      m.current = &thread;  // For the message.
      if (warp.arrived > 0) Fail("a thread ended while lanes of its warp wait for it");
      if (m.at_block > 0) Fail("a thread ended while threads of its block wait at a barrier");
    }
    if (!progress) Fail("deadlock: threads wait in different places");
  }
  TsanAcquire(&m.end_tag);
}

// Stacks and TSan fibers outlive launches: making them costs far more than running a small kernel.
struct FiberHome {
  void* stack = nullptr;
  FiberMarks marks;
};

void AssignStacks(Machine& m) {
  static std::vector<FiberHome> homes;
  while (homes.size() < m.threads.size()) {
    FiberHome home;
    home.stack =
        mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (home.stack == MAP_FAILED) Fail("no memory for the stacks of the block");
    CreateFiberMarks(home.marks);
    homes.push_back(home);
  }
  for (size_t i = 0; i < m.threads.size(); ++i) {
    m.threads[i].stack = homes[i].stack;
    m.threads[i].marks = homes[i].marks;
  }
}

// All lanes of the warp meet; the last one calls all(in, out) for the whole warp.
template <class All>
uint64_t Collective(const char* operation, uint64_t value, bool orders_memory, All all) {
  Machine& m = Running();
  Thread& self = *m.current;
  const int lane = self.linear % kWarpLanes, first = self.linear - lane;
  Warp& warp = m.warps[self.linear / kWarpLanes];
  if (warp.live != kWarpLanes) Fail("collective in a warp of which lanes have ended");
  if (warp.arrived > 0 && warp.operation != operation)
    Fail("lanes of a warp meet in different collectives");
  char* tag = &warp.tags[self.warp_epoch++ & 1];
  if (orders_memory) TsanRelease(tag);
  warp.operation = operation;
  warp.in[lane] = value;
  if (++warp.arrived == kWarpLanes) {
    warp.arrived = 0;
    ++m.stats.warp_collectives;
    all(warp.in, warp.out);
    for (int i = first; i < first + kWarpLanes; ++i) {
      if (m.threads[i].state == State::kAtWarp) m.threads[i].state = State::kReady;
    }
  } else {
    Wait(State::kAtWarp);
  }
  if (orders_memory) TsanAcquire(tag);
  // No lane can overwrite `out` before all have read it: that takes all 32 lanes to arrive again.
  return warp.out[lane];
}

}  // namespace

LaunchStats Launch(Dim3 grid, Dim3 block, const std::function<void()>& kernel,
                   const LaunchOptions& options) {
  if (machine != nullptr) Fail("a kernel launches a kernel");
  const auto owner = std::make_unique<Machine>();
  Machine& m = *owner;
  m.count = static_cast<int>(block.x * block.y * block.z);
  if (m.count < 1 || m.count > kMaxThreads || m.count % kWarpLanes != 0) {
    Fail("the block must hold 32, 64, ... 1024 threads");
  }
  m.grid = grid;
  m.block = block;
  m.kernel = &kernel;
  m.options = options;
  m.random = options.seed;
  m.threads.resize(static_cast<size_t>(m.count));
  m.warps.resize(static_cast<size_t>(m.count / kWarpLanes));
  for (int i = 0; i < m.count; ++i) m.order.push_back(i);
  AssignStacks(m);
  machine = &m;
  StartScheduler(m.marks);
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        m.block_index = {x, y, z};
        RunBlock(m);
      }
    }
  }
  machine = nullptr;
  return m.stats;
}

const Dim3& ThreadIndex() { return Running().current->index; }
const Dim3& BlockIndex() { return Running().block_index; }
const Dim3& BlockShape() { return Running().block; }
const Dim3& GridShape() { return Running().grid; }

void BlockBarrier() {
  Machine& m = Running();
  if (m.options.skip_block_barriers) return;
  if (m.live != m.count) Fail("a barrier after threads of the block have ended");
  char* tag = &m.barrier_tags[m.current->block_epoch++ & 1];
  TsanRelease(tag);
  if (++m.at_block == m.count) {
    m.at_block = 0;
    ++m.stats.block_barriers;
    for (Thread& thread : m.threads) {
      if (thread.state == State::kAtBlock) thread.state = State::kReady;
    }
  } else {
    Wait(State::kAtBlock);
  }
  TsanAcquire(tag);
}

void WarpBarrier() {
  Collective("__syncwarp", 0, /*orders_memory=*/true, [](const uint64_t*, uint64_t*) {});
}

uint64_t ShuffleDown(uint64_t value, unsigned delta) {
  return Collective("__shfl_down_sync", value, /*orders_memory=*/false,
                    [delta](const uint64_t* in, uint64_t* out) {
                      for (unsigned lane = 0; lane < kWarpLanes; ++lane)
                        out[lane] = in[lane + delta < kWarpLanes ? lane + delta : lane];
                    });
}

uint64_t ShuffleXor(uint64_t value, unsigned mask) {
  return Collective("__shfl_xor_sync", value, /*orders_memory=*/false,
                    [mask](const uint64_t* in, uint64_t* out) {
                      for (unsigned lane = 0; lane < kWarpLanes; ++lane)
                        out[lane] = in[(lane ^ mask) % kWarpLanes];
                    });
}

void Fail(const char* what) {
  if (machine != nullptr && machine->current != nullptr) {
    const Dim3& b = machine->block_index;
    std::fprintf(stderr, "simt: %s (block %u %u %u, thread %d)\n", what, b.x, b.y, b.z,
                 machine->current->linear);
  } else {
    std::fprintf(stderr, "simt: %s\n", what);
  }
  std::abort();
}

}  // namespace tern::simt
