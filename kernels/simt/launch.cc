// Launches: hands the blocks of a grid to one or more slots. Several slots run on an OS thread
// each, so that `__shared__` (thread_local) is the block's own, and take turns: one runs at a time.
// The turn passes between schedulers, never between fibers, so TSan takes no order from it for the
// CUDA threads of blocks that are resident together.
#include <sys/mman.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "kernels/simt/machine.h"
#include "kernels/simt/traffic.h"

namespace tern::simt {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kMaxResidentBlocks = 16;
constexpr size_t kSharedAlign = 1024;  // As generous as hardware: kernels state what they need.

// Stacks and TSan fibers outlive launches: making them costs far more than running a small kernel.
struct FiberHome {
  void* stack = nullptr;
  FiberMarks marks;
};

void AssignStacks(Slot& slot) {
  static std::vector<std::vector<FiberHome>> homes_of_slot(kMaxResidentBlocks);
  std::vector<FiberHome>& homes = homes_of_slot[static_cast<size_t>(slot.number)];
  while (homes.size() < slot.threads.size()) {
    FiberHome home;
    home.stack =
        mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (home.stack == MAP_FAILED) Fail("no memory for the stacks of the block");
    CreateFiberMarks(home.marks);
    homes.push_back(home);
  }
  for (size_t i = 0; i < slot.threads.size(); ++i) {
    slot.threads[i].stack = homes[i].stack;
    slot.threads[i].marks = homes[i].marks;
  }
}

// The turn of the slots, and the blocks that are still to start.
class Blocks {
 public:
  Blocks(LaunchState& grid, int slots)
      : grid_(grid), live_(static_cast<size_t>(slots), true), changed_(static_cast<size_t>(slots)) {
    for (unsigned z = 0; z < grid.grid.z; ++z) {
      for (unsigned y = 0; y < grid.grid.y; ++y) {
        for (unsigned x = 0; x < grid.grid.x; ++x) left_.push_back({x, y, z});
      }
    }
    std::reverse(left_.begin(), left_.end());  // Taken from the end.
    if (!grid.options.shuffle) return;
    for (size_t i = left_.size(); i > 1; --i) {
      std::swap(left_[i - 1], left_[NextRandom(grid, static_cast<uint32_t>(i))]);
    }
  }

  bool Take(Dim3* index) {
    if (left_.empty()) return false;
    *index = left_.back();
    left_.pop_back();
    return true;
  }

  void WaitForTurn(int slot) {
    std::unique_lock<std::mutex> lock(mutex_);
    Changed(slot).wait(lock, [&] { return turn_ == slot; });
  }

  void PassTurn(int slot) {
    std::unique_lock<std::mutex> lock(mutex_);
    turn_ = NextLive(slot);
    if (turn_ == slot) return;
    Changed(turn_).notify_one();
    Changed(slot).wait(lock, [&] { return turn_ == slot; });
  }

  void Leave(int slot) {
    const std::unique_lock<std::mutex> lock(mutex_);
    live_[static_cast<size_t>(slot)] = false;
    turn_ = NextLive(slot);
    Changed(turn_).notify_one();
  }

 private:
  std::condition_variable& Changed(int slot) { return changed_[static_cast<size_t>(slot)]; }

  int NextLive(int slot) {
    const int slots = static_cast<int>(live_.size());
    int next = slot;
    if (grid_.options.shuffle) {
      next = static_cast<int>(NextRandom(grid_, static_cast<uint32_t>(slots)));
    }
    for (int tried = 0; tried < slots; ++tried) {
      next = (next + 1) % slots;
      if (live_[static_cast<size_t>(next)]) return next;
    }
    return slot;
  }

  LaunchState& grid_;
  std::vector<Dim3> left_;
  std::mutex mutex_;
  std::vector<bool> live_;
  std::vector<std::condition_variable> changed_;  // One a slot: only the next is woken.
  int turn_ = 0;
};

struct FreeMemory {
  void operator()(uint8_t* p) const { std::free(p); }
};
using SharedMemory = std::unique_ptr<uint8_t, FreeMemory>;

// Of exact size, so that ASan sees the first byte beyond it.
SharedMemory AllocateShared(int64_t bytes) {
  void* p = nullptr;
  if (bytes > 0 && posix_memalign(&p, kSharedAlign, static_cast<size_t>(bytes)) != 0) {
    Fail("no memory for the shared memory of the block");
  }
  return SharedMemory(static_cast<uint8_t*>(p));
}

void RunSlot(Slot& slot, Blocks& blocks) {
  const SharedMemory shared = AllocateShared(slot.grid->options.dynamic_shared_bytes);
  slot.dynamic_shared = shared.get();
  CurrentSlot() = &slot;
  StartScheduler(slot.marks);
  Dim3 index;
  while (blocks.Take(&index)) RunBlock(slot, index);
  CurrentSlot() = nullptr;
}

std::unique_ptr<Slot> MakeSlot(LaunchState& grid, int number) {
  auto slot = std::make_unique<Slot>();
  slot->grid = &grid;
  slot->number = number;
  slot->count = static_cast<int>(grid.block.x * grid.block.y * grid.block.z);
  slot->threads.resize(static_cast<size_t>(slot->count));
  slot->warps.resize(static_cast<size_t>(slot->count / kWarpLanes));
  for (int i = 0; i < slot->count; ++i) slot->order.push_back(i);
  AssignStacks(*slot);
  return slot;
}

// The limits of CUDA, whose driver refuses such a launch. (LaunchKernel makes none of no block.)
void CheckDimensions(const Dim3& grid, const Dim3& block) {
  constexpr unsigned kMostX = 0x7FFFFFFF, kMostYz = 65535, kMostBlockZ = 64;
  if (grid.x > kMostX || grid.y > kMostYz || grid.z > kMostYz)
    Fail("the grid may have 2^31 - 1 blocks along x, 65535 along y and z");
  if (block.z > kMostBlockZ) Fail("the block may have 64 threads along z");
}

void CheckLaunch(const Dim3& block, const LaunchOptions& options) {
  if (CurrentSlot() != nullptr) Fail("a kernel launches a kernel");
  const unsigned threads = block.x * block.y * block.z;
  if (threads < 1 || threads > kMaxThreads || threads % kWarpLanes != 0) {
    Fail("the block must hold 32, 64, ... 1024 threads");
  }
  if (options.resident_blocks < 1 || options.resident_blocks > kMaxResidentBlocks) {
    Fail("resident_blocks must be 1 to 16");
  }
  if (options.dynamic_shared_bytes < 0 || options.dynamic_shared_bytes > kMaxDynamicSharedBytes) {
    Fail("dynamic_shared_bytes must be 0 to 227 KiB");
  }
}

}  // namespace

LaunchStats Launch(Dim3 grid_shape, Dim3 block, const std::function<void()>& kernel,
                   const LaunchOptions& options) {
  CheckDimensions(grid_shape, block);
  CheckLaunch(block, options);
  LaunchState grid;
  grid.grid = grid_shape;
  grid.block = block;
  grid.kernel = &kernel;
  grid.options = options;
  grid.random = options.seed;
  TrafficCounter traffic;
  if (options.count_traffic) grid.traffic = &traffic;
  Blocks blocks(grid, options.resident_blocks);
  if (options.resident_blocks == 1) {
    RunSlot(*MakeSlot(grid, 0), blocks);
  } else {
    grid.pass_turn = [&](int slot) { blocks.PassTurn(slot); };
    std::vector<std::unique_ptr<Slot>> slots;
    for (int i = 0; i < options.resident_blocks; ++i) slots.push_back(MakeSlot(grid, i));
    std::vector<std::thread> threads;
    for (auto& slot : slots) {
      threads.emplace_back([&blocks, &slot] {
        blocks.WaitForTurn(slot->number);
        RunSlot(*slot, blocks);
        blocks.Leave(slot->number);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  traffic.Report(&grid.stats);
  return std::move(grid.stats);
}

}  // namespace tern::simt
