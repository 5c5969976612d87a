// Memory in the emulator: asynchronous copies and their poison, dynamic shared memory, atomics,
// resident blocks, and the counters of bank conflicts and sectors; and that misuse stops with block
// and thread.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/simt/intrin_tensor.h"
#include "kernels/simt/traffic.h"
#include "tests/simt/device_buffer.h"

namespace tern::simt {
namespace {

using kernels::DeviceBuffer;

// Each thread copies 16 bytes and reads its neighbour's.
__global__ void CopyAndRead(const uint32_t* in, uint32_t* out, bool wait, bool barrier) {
  auto* staged = reinterpret_cast<uint32_t*>(DynamicShared());
  const unsigned i = threadIdx.x, threads = blockDim.x;
  const uint32_t* from = in + 4 * (blockIdx.x * threads + i);
  CopyAsync16(staged + 4 * i, from, true);
  CommitCopies();
  if (wait) WaitForCopies<0>();
  if (barrier) SyncBlock();
  out[blockIdx.x * threads + i] = staged[4 * ((i + 1) % threads)];
  if (!wait) WaitForCopies<0>();
}

struct CopyRun {
  explicit CopyRun(LaunchOptions options, bool wait = true, bool barrier = true)
      : in(4 * 256, 0), out(256, 0) {
    for (int i = 0; i < 4 * 256; ++i) in.data()[i] = static_cast<uint32_t>(7 * i);
    options.dynamic_shared_bytes = 64 * 16;
    stats = Launch(
        {4}, {64}, [&] { CopyAndRead(in.data(), out.data(), wait, barrier); }, options);
  }
  int Wrong() const {
    int wrong = 0;
    for (int i = 0; i < 256; ++i) {
      const int neighbour = i / 64 * 64 + (i + 1) % 64;
      wrong += out.data()[i] != static_cast<uint32_t>(28 * neighbour);
    }
    return wrong;
  }
  DeviceBuffer<uint32_t> in, out;
  LaunchStats stats;
};

TEST(AsyncCopyTest, BytesArriveAfterWaitAndBarrier) {
  for (int resident : {1, 2, 9}) {
    const CopyRun in_order({.resident_blocks = resident});
    EXPECT_EQ(in_order.Wrong(), 0) << resident;
    EXPECT_EQ(in_order.stats.async_copies, 256);
    EXPECT_EQ(in_order.stats.block_barriers, 4);
    for (uint32_t seed = 1; seed <= 3; ++seed) {
      EXPECT_EQ(CopyRun({.shuffle = true, .seed = seed, .resident_blocks = resident}).Wrong(), 0);
    }
  }
}

#if defined(__SANITIZE_ADDRESS__)
TEST(AsyncCopyDeathTest, ReadBeforeTheWaitIsReported) {
  EXPECT_DEATH(CopyRun({}, /*wait=*/false), "use-after-poison.*(\n.*)*CopyAndRead");
}
#elif defined(TERN_SIMT_TSAN)
TEST(AsyncCopyDeathTest, MissingBarrierIsReported) {
  EXPECT_DEATH(CopyRun({}, true, /*barrier=*/false), "data race.*(\n.*)*CopyAndRead");
}
#else
TEST(AsyncCopyTest, ReadBeforeTheWaitGivesPoison) {
  const CopyRun run({}, /*wait=*/false);
  EXPECT_EQ(run.Wrong(), 252);  // The last thread reads the first one's, which ended with a wait.
  EXPECT_EQ(run.out.data()[0], 0xFFFFFFFFu);
  EXPECT_GT(CopyRun({}, true, /*barrier=*/false).Wrong(), 0);
}
#endif

// Groups: with one left under way, the older one has arrived and the newer one not.
TEST(AsyncCopyTest, GroupsArriveInOrderAndInvalidCopiesAreZeros) {
  alignas(16) static const uint32_t in[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  int wrong = 0;
  Launch({1}, {32}, [&] {
    alignas(16) __shared__ uint32_t staged[32][3][4];
    auto& mine = staged[threadIdx.x];
    CopyAsync16(mine[0], in, true);
    CommitCopies();
    CopyAsync16(mine[1], in + 4, true);
    CopyAsync16(mine[2], nullptr, false);
    CommitCopies();
    WaitForCopies<1>();
    AddAtomically(&wrong, mine[0][3] != 4 ? 1 : 0);
    CommitCopies();  // An empty group counts.
    WaitForCopies<1>();
    AddAtomically(&wrong, mine[1][0] != 5 || mine[2][2] != 0 ? 1 : 0);
  });
  EXPECT_EQ(wrong, 0);
}

// Blocks of several slots, each with its own static and dynamic shared memory.
__global__ void SumOwnBlock(int* out) {
  __shared__ int shared_sum;
  auto* dynamic = reinterpret_cast<int*>(DynamicShared());
  if (threadIdx.x == 0) shared_sum = 0;
  if (threadIdx.x == 1) dynamic[0] = 0;
  SyncBlock();
  for (int i = 0; i < 3; ++i) {
    AddAtomically(&shared_sum, static_cast<int>(blockIdx.x));
    AddAtomically(dynamic, static_cast<int>(blockIdx.x));
    SyncBlock();
  }
  if (threadIdx.x == 0) out[blockIdx.x] = shared_sum * 100000 + dynamic[0];
}

// What every block reads from static shared memory before anyone wrote there, and what it reads
// then.
__global__ void ReadThenWrite(int* first, int* second) {
  TERN_SHARED(int, values, [64]);
  first[blockIdx.x * 64 + threadIdx.x] = values[63 - threadIdx.x];
  SyncBlock();
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  SyncBlock();
  second[blockIdx.x * 64 + threadIdx.x] = values[63 - threadIdx.x];
}

TEST(SharedMemoryTest, StaticArraysArePoisonedInEveryBlock) {
  for (int resident : {1, 3}) {
    for (bool shuffle : {false, true}) {
      for (int launch = 0; launch < 2; ++launch) {
        std::vector<int> first(6 * 64), second(6 * 64);
        Launch({6}, {64}, [&] { ReadThenWrite(first.data(), second.data()); },
               {.shuffle = shuffle, .resident_blocks = resident});
        EXPECT_EQ(first, std::vector<int>(6 * 64, -1));
        for (int i = 0; i < 6 * 64; ++i) EXPECT_EQ(second[static_cast<size_t>(i)], 63 - i % 64);
      }
    }
  }
}

TEST(ResidentBlocksTest, EachHasItsOwnSharedMemory) {
  for (int resident : {1, 3, 16}) {
    for (bool shuffle : {false, true}) {
      std::vector<int> out(12, -1);
      Launch({12}, {64}, [&] { SumOwnBlock(out.data()); },
             {.shuffle = shuffle, .resident_blocks = resident, .dynamic_shared_bytes = 4});
      for (int b = 0; b < 12; ++b) {
        EXPECT_EQ(out[static_cast<size_t>(b)], 192 * b * 100000 + 192 * b) << resident;
      }
    }
  }
}

// Every block reads the sum, passes a barrier and writes it back: lost when blocks interleave.
__global__ void AddInTwoSteps(int* sum) {
  const int before = *sum;
  SyncBlock();
  if (threadIdx.x == 0) *sum = before + 1;
}

int SumInTwoSteps(int resident) {
  int sum = 0;
  Launch({8}, {32}, [&] { AddInTwoSteps(&sum); }, {.resident_blocks = resident});
  return sum;
}

TEST(ResidentBlocksTest, OneAfterTheOtherHidesARaceBetweenBlocks) {
  EXPECT_EQ(SumInTwoSteps(1), 8);
}
#if defined(TERN_SIMT_TSAN)
TEST(ResidentBlocksDeathTest, RaceDetectorFindsARaceBetweenBlocks) {
  EXPECT_DEATH(SumInTwoSteps(2), "data race.*(\n.*)*AddInTwoSteps");
}
#else
TEST(ResidentBlocksTest, InterleavedBlocksLoseUnprotectedSums) { EXPECT_LT(SumInTwoSteps(4), 8); }
#endif

TEST(AtomicsTest, SumsOfAllBlocksAreWhole) {
  int ints = 5;
  float floats = 0.5f;
  Launch({8}, {64},
         [&] {
           AddAtomically(&ints, 3);
           AddAtomically(&floats, 0.25f);
         },
         {.shuffle = true, .resident_blocks = 4});
  EXPECT_EQ(ints, 5 + 3 * 512);
  EXPECT_EQ(floats, 0.5f + 0.25f * 512);  // Multiples of 1/4 below 2^22: exact in any order.
}

TEST(DynamicSharedTest, IsPoisonWhenABlockStarts) {
  std::vector<float> seen(3, 0.0f);
  Launch({3}, {32},
         [&] {
           auto* shared = reinterpret_cast<float*>(DynamicShared());
           if (threadIdx.x == 0) seen[blockIdx.x] = shared[1];
           SyncBlock();
           shared[threadIdx.x] = 1.0f;
         },
         {.dynamic_shared_bytes = 128});
  for (float v : seen) EXPECT_TRUE(std::isnan(v));
}

#if defined(__SANITIZE_ADDRESS__)
TEST(DynamicSharedDeathTest, FirstByteBeyondIsReported) {
  EXPECT_DEATH(Launch({1}, {32}, [] { DynamicShared()[100 + threadIdx.x / 31] = 1; },
                      {.dynamic_shared_bytes = 101}),
               "heap-buffer-overflow");
}
#endif

// Worked out by hand: 32 banks of 4 bytes.
TEST(TrafficTest, WavefrontsAreThoseOfTheBanks) {
  const auto wavefronts = [](int stride, int bytes) {
    uint64_t address[32];
    for (int lane = 0; lane < 32; ++lane)
      address[lane] = 4096 + static_cast<uint64_t>(stride * lane);
    return SharedWavefronts(address, kFullMask, bytes);
  };
  EXPECT_EQ(wavefronts(4, 4), 1);     // A bank each.
  EXPECT_EQ(wavefronts(0, 4), 1);     // One word for all.
  EXPECT_EQ(wavefronts(8, 4), 2);     // Every other bank, twice.
  EXPECT_EQ(wavefronts(128, 4), 32);  // One bank.
  EXPECT_EQ(wavefronts(132, 4), 1);   // Padded by a word.
  EXPECT_EQ(wavefronts(16, 16), 4);   // 512 bytes in phases of 128.
  EXPECT_EQ(wavefronts(128, 16), 32);
  EXPECT_EQ(wavefronts(144, 16), 4);  // Rows of 128 bytes padded by 16.
  EXPECT_EQ(wavefronts(8, 8), 2);
}

TEST(TrafficTest, CountsALaunchByItsLines) {
  alignas(128) static const uint32_t words[32 * 32] = {};
  const LaunchOptions options{.shuffle = true, .dynamic_shared_bytes = 4096, .count_traffic = true};
  const LaunchStats stats = Launch(
      {2}, {64},
      [] {
        uint8_t* shared = DynamicShared();
        const unsigned lane = threadIdx.x % 32;
        LoadShared32(shared + 128 * lane);
        LoadConstant32(words + lane);
        LoadConstant32(words + 32 * lane);
      },
      options);
  ASSERT_EQ(stats.traffic.size(), 3u);
  const auto expect = [](const SiteTraffic& site, Traffic kind, int64_t transactions,
                         int64_t ideal) {
    EXPECT_EQ(site.kind, kind);
    EXPECT_EQ(site.file, "memory_test.cc");
    EXPECT_EQ(site.requests, 4);
    EXPECT_EQ(site.transactions, transactions);
    EXPECT_EQ(site.ideal, ideal);
  };
  expect(stats.traffic[0], Traffic::kSharedLoad, 4 * 32, 4);
  expect(stats.traffic[1], Traffic::kGlobalLoad, 4 * 4, 4 * 4);
  expect(stats.traffic[2], Traffic::kGlobalLoad, 4 * 32, 4 * 4);
  EXPECT_NE(TrafficTable(stats).find("shared load: 4 requests, 128 wavefronts, 4 at best"),
            std::string::npos);
}

TEST(WordsTest, BytesArePermutedAndWideStoresLandInPlace) {
  EXPECT_EQ(PermuteBytes(0x33221100u, 0x77665544u, 0x7610), 0x77661100u);
  EXPECT_EQ(PermuteBytes(0x33221100u, 0x77665544u, 0x0437), 0x00443377u);
  alignas(16) uint32_t words[8] = {9, 9, 9, 9, 9, 9, 9, 9};
  Launch({1}, {32}, [&] {
    if (threadIdx.x != 0) return;
    StoreGlobal128(words, {{1, 2, 3, 4}});
    StoreGlobal64(words + 4, {{5, 6}});
  });
  for (uint32_t i = 0; i < 8; ++i) EXPECT_EQ(words[i], i < 6 ? i + 1 : 9) << i;
}

TEST(WarpVotesTest, VotesAndIndexedShuffles) {
  uint32_t ballot[64];
  bool any[64], all[64];
  int from[64];
  float from_float[64];
  Launch({1}, {64},
         [&] {
           const int lane = static_cast<int>(threadIdx.x % 32);
           ballot[threadIdx.x] = Ballot(lane % 3 == 0);
           any[threadIdx.x] = AnyLane(threadIdx.x == 40);
           all[threadIdx.x] = AllLanes(threadIdx.x != 40);
           from[threadIdx.x] = ShuffleInt(-lane, static_cast<unsigned>(lane * 5) % 32);
           from_float[threadIdx.x] = ShuffleFloat(static_cast<float>(lane), 7);
         },
         {.shuffle = true});
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(ballot[i], 0x49249249u);
    EXPECT_EQ(any[i], i >= 32);
    EXPECT_EQ(all[i], i < 32);
    EXPECT_EQ(from[i], -(i % 32 * 5 % 32));
    EXPECT_EQ(from_float[i], 7.0f);
  }
}

// A death test forks, which TSan allows only with one thread: these tests start none.
TEST(MemoryDeathTest, MisuseStopsWithBlockAndThread) {
  alignas(16) static uint8_t bytes[64] = {};
  const auto run = [](auto body) { Launch({1}, {64}, body); };
  const std::string where = ".*block 0 0 0, thread";
  EXPECT_DEATH(run([] { CopyAsync16(bytes + 8, bytes, true); }),
               "destination of cp.async is not aligned" + where);
  EXPECT_DEATH(run([] { CopyAsync16(bytes + 16, bytes + 4, true); }),
               "source of cp.async is not aligned" + where);
  EXPECT_DEATH(run([] {
                 if (threadIdx.x != 37) return;
                 CopyAsync16(bytes, bytes + 16, true);
                 CommitCopies();
                 WaitForCopies<1>();
               }),
               "did not wait for \\(block 0 0 0, thread 37");
  EXPECT_DEATH(run([] {
                 uint32_t out[1];
                 LoadMatrix<1>(out, bytes + (threadIdx.x == 5 ? 8 : 0));
               }),
               "ldmatrix is not aligned to 16 bytes \\(block 0 0 0, thread 5");
  EXPECT_DEATH(run([] { LoadShared128(bytes + 4); }), "not aligned" + where);
  EXPECT_DEATH(run([] { StoreGlobal128(bytes + 8, {}); }), "128-bit store is not" + where);
  EXPECT_DEATH(run([] { StoreGlobal64(bytes + 4, {}); }), "64-bit store is not" + where);
  EXPECT_DEATH(run([] { DynamicShared(); }), "no dynamic shared memory" + where);
  EXPECT_DEATH(run([] { ShuffleDownInt(1, 1, 0xFFFFu); }), "partial mask 0x0000FFFF" + where);
  EXPECT_DEATH(run([] { Ballot(true, 1u); }), "partial mask" + where);
  EXPECT_DEATH(run([] {
                 if (threadIdx.x == 9) return;
                 ShuffleXorInt(1, 1);
               }),
               "ended while lanes of its warp wait for it in __shfl_xor_sync" + where + " 9");
  EXPECT_DEATH(
      run([] {
        if (threadIdx.x == 9) SyncBlock();
        ShuffleXorInt(1, 1);
        if (threadIdx.x != 9) SyncBlock();
      }),
      "deadlock: waits at a barrier while its warp waits in __shfl_xor_sync" + where + " 9");
  EXPECT_DEATH(Launch({1}, {32}, [] {}, {.resident_blocks = 17}), "resident_blocks");
  EXPECT_DEATH(Launch({1}, {32}, [] {}, {.dynamic_shared_bytes = 1 << 20}), "227 KiB");
  EXPECT_DEATH(Launch({3}, {32},
                      [] {
                        if (blockIdx.x == 2) LoadShared128(bytes + 4);
                      },
                      {.resident_blocks = 3}),
               "block 2 0 0, thread 0");
}

}  // namespace
}  // namespace tern::simt
