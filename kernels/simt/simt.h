// Runs CUDA kernels on a CPU without a GPU: one fiber a CUDA thread, one or several blocks at a
// time. It is for proving kernels right, not for speed. What it finds: wrong results, barriers that
// not every thread reaches, lanes of a warp that meet in different collectives or do not come,
// misaligned wide accesses, asynchronous copies that no one waited for, out-of-bounds accesses
// (under ASan), data races between threads of a block and between resident blocks (under TSan: each
// CUDA thread is a TSan fiber, and only barriers order them), bank conflicts and uncoalesced
// accesses (counted on request).
//
// What it does not show: the hardware's memory model, lock-step effects, the order of sums inside a
// tensor core, and any speed. Rules for kernels: whole warps; full masks; launches through
// simt::Launch. Misuse aborts with block and thread, because a fiber cannot be unwound from inside
// a kernel. Not thread-safe: one launch at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace tern::simt {

inline constexpr int kWarpLanes = 32;
inline constexpr uint32_t kFullMask = 0xFFFFFFFFu;
// The most that a block may ask for on sm_90; sm_80 gives 163 KiB, sm_86, 89 and 120 give 99 KiB.
inline constexpr int64_t kMaxDynamicSharedBytes = 227 << 10;

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

struct LaunchOptions {
  // Threads that can run do so in thread order, or in a new pseudo-random order each round; blocks
  // start in order, or in a pseudo-random one.
  bool shuffle = false;
  uint32_t seed = 1;
  // Fault injection: __syncthreads does nothing. A test that a kernel's result depends on its
  // barriers, and that the race detector sees their absence.
  bool skip_block_barriers = false;
  // Blocks under way at once: after each round of one block's threads another block goes on (the
  // next, or with `shuffle` any, also in the middle of a round). Nothing orders resident blocks, so
  // TSan sees races between them.
  int resident_blocks = 1;
  int64_t dynamic_shared_bytes = 0;  // Of each block; 0xFF in every byte when the block starts.
  bool count_traffic = false;        // Fills LaunchStats::traffic.
};

enum class Traffic { kSharedLoad, kSharedStore, kGlobalLoad, kGlobalStore };

// What the accesses of one source line did, a warp at a time. Shared memory: wavefronts (passes
// over the 32 banks) against the fewest that this many bytes a lane need; the difference is bank
// conflicts. Global memory: 32-byte sectors against the fewest that hold the bytes.
struct SiteTraffic {
  std::string file;
  int line = 0;
  Traffic kind = Traffic::kSharedLoad;
  int64_t requests = 0, transactions = 0, ideal = 0;
};

struct LaunchStats {
  int64_t switches = 0;          // Times a fiber was resumed.
  int64_t block_barriers = 0;    // Barriers passed, one a block.
  int64_t warp_collectives = 0;  // Shuffles, votes, matrix steps and warp barriers, one a warp.
  int64_t async_copies = 0;      // cp.async of 16 bytes.
  std::vector<SiteTraffic> traffic;
};

// Runs `kernel` once for each thread of the grid. REQUIRES: block.x * y * z a multiple of 32 and at
// most 1024.
LaunchStats Launch(Dim3 grid, Dim3 block, const std::function<void()>& kernel,
                   const LaunchOptions& options = {});

// One line a source line, for a test to print.
std::string TrafficTable(const LaunchStats& stats);

// For the intrin headers: what a running CUDA thread sees and does.
const Dim3& ThreadIndex();
const Dim3& BlockIndex();
const Dim3& BlockShape();
const Dim3& GridShape();
void BlockBarrier();
void WarpBarrier();
// The first call of a block with this memory writes 0xFF into every byte: NaN, or -1.
void PoisonShared(void* memory, size_t size_bytes);
uint8_t* DynamicSharedMemory();
// The value of lane + delta, or the own one beyond the warp.
uint64_t ShuffleDown(uint64_t value, unsigned delta);
// The value of lane ^ mask.
uint64_t ShuffleXor(uint64_t value, unsigned mask);
// The value of `lane` (modulo 32).
uint64_t ShuffleIndex(uint64_t value, unsigned lane);
// Bit i: the predicate of lane i.
uint32_t BallotWarp(bool predicate);
// Stops when the mask of a warp intrinsic is not kFullMask.
void RequireFullMask(uint32_t mask, const char* operation);

// cp.async: the bytes are taken when it is issued and reach shared memory when this thread waits.
struct AsyncCopy {
  void* to = nullptr;
  uint8_t bytes[16] = {};
  int64_t group = 0;
};
void IssueAsyncCopy(const AsyncCopy& copy);
void CommitAsyncCopies();
// Takes the oldest copy that wait_group `keep` waits for; false: none is left.
bool TakeAsyncCopy(int keep, AsyncCopy* copy);

// Matrix steps (mma.cc): whole warps, fragments as the PTX manual lays them over the lanes.
enum class MatrixType { kS8, kU8, kF16, kBf16 };
void MatrixMultiplyInt8(MatrixType a_type, const uint32_t* a4, const uint32_t* b2, uint32_t* c4);
void MatrixMultiplyFloat16(MatrixType type, const uint32_t* a4, const uint32_t* b2, uint32_t* c4);
// `row`: 16 bytes of the lane's row, or null for a lane whose address the instruction ignores.
void LoadMatrices(int matrices, bool transposed, const uint8_t* row, uint32_t* out);

// One access of this lane for the counters; nothing unless the launch counts.
void RecordAccess(Traffic kind, const void* address, int bytes, const char* file, int line);

[[noreturn]] void Fail(const char* what);

}  // namespace tern::simt
