// The emulator itself, on small kernels: indices, barriers, shuffles, and that it stops on each
// kind of misuse. The race detector (only in a TSan build) must find a planted race and stay silent
// on the same kernel with its barriers.
#include "kernels/simt/simt.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/simt/intrin.h"

#if defined(TERN_SIMT_TSAN)
// Makes a data race end the process, so that a death test sees it.
extern "C" const char* __tsan_default_options() { return "halt_on_error=1"; }
#endif

namespace tern::simt {
namespace {

__global__ void WriteIndex(int* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  out[block * threads + thread] += static_cast<int>(block * 1000 + thread);
}

TEST(SimtTest, EveryThreadRunsOnce) {
  const Dim3 grid{3, 2, 2}, block{8, 4, 2};
  std::vector<int> out(12 * 64, 0);
  Launch(grid, block, [&] { WriteIndex(out.data()); });
  for (int b = 0; b < 12; ++b) {
    for (int t = 0; t < 64; ++t) EXPECT_EQ(out[static_cast<size_t>(b * 64 + t)], b * 1000 + t);
  }
}

// Each thread writes one element and, after the barrier, reads another warp's.
__global__ void ReverseInBlock(const int* in, int* out) {
  __shared__ int staged[128];
  const unsigned i = threadIdx.x;
  staged[i] = in[blockIdx.x * 128 + i];
  SyncBlock();
  out[blockIdx.x * 128 + i] = staged[127 - i];
  SyncBlock();  // Before the next block overwrites: here blocks share the array.
}

struct Reverse {
  explicit Reverse(const LaunchOptions& options) : in(512), out(512) {
    for (int i = 0; i < 512; ++i) in[static_cast<size_t>(i)] = 7 * i;
    stats = Launch(
        {4}, {128}, [this] { ReverseInBlock(in.data(), out.data()); }, options);
  }
  int Wrong() const {
    int wrong = 0;
    for (size_t i = 0; i < 512; ++i) wrong += out[i] != in[i / 128 * 128 + 127 - i % 128];
    return wrong;
  }
  std::vector<int> in, out;
  LaunchStats stats;
};

TEST(SimtTest, BarrierOrdersSharedMemory) {
  const Reverse in_order({});
  EXPECT_EQ(in_order.Wrong(), 0);
  EXPECT_EQ(in_order.stats.block_barriers, 8);
  for (uint32_t seed = 1; seed <= 10; ++seed)
    EXPECT_EQ(Reverse({.shuffle = true, .seed = seed}).Wrong(), 0);
}

#if defined(TERN_SIMT_TSAN)
TEST(SimtDeathTest, RaceDetectorFindsAMissingBarrier) {
  EXPECT_DEATH(Reverse({.skip_block_barriers = true}), "data race.*(\n.*)*ReverseInBlock");
}
#else
TEST(SimtTest, MissingBarrierGivesWrongResults) {
  EXPECT_GT(Reverse({.skip_block_barriers = true}).Wrong(), 0);
}
#endif

__global__ void Shuffles(int* down, uint64_t* crossed) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  down[threadIdx.x] = ShuffleDownInt(-lane, 5);
  crossed[threadIdx.x] = ShuffleXor(static_cast<uint64_t>(lane) << 40, 3);
}

TEST(SimtTest, ShufflesMoveLanes) {
  for (const LaunchOptions& options :
       {LaunchOptions{}, LaunchOptions{.shuffle = true, .seed = 9}}) {
    std::vector<int> down(64);
    std::vector<uint64_t> crossed(64);
    const LaunchStats stats = Launch(
        {1}, {64}, [&] { Shuffles(down.data(), crossed.data()); }, options);
    for (int i = 0; i < 64; ++i) {
      const int lane = i % 32;
      EXPECT_EQ(down[static_cast<size_t>(i)], lane + 5 < 32 ? -(lane + 5) : -lane);
      EXPECT_EQ(crossed[static_cast<size_t>(i)], static_cast<uint64_t>(lane ^ 3) << 40);
    }
    EXPECT_EQ(stats.warp_collectives, 4);
  }
}

// A death test forks, which TSan allows only with one thread: these tests start none.
TEST(SimtDeathTest, MisuseStopsWithBlockAndThread) {
  alignas(16) static const uint8_t bytes[32] = {};
  const auto run = [](auto body) { Launch({1}, {64}, body); };
  EXPECT_DEATH(run([] {
                 if (threadIdx.x != 40) SyncBlock();
               }),
               "simt: .*block 0 0 0, thread");
  EXPECT_DEATH(run([] {
                 if (threadIdx.x < 32) {
                   SyncBlock();
                 } else {
                   WarpBarrier();
                   if (threadIdx.x == 63) return;
                   SyncBlock();
                 }
               }),
               "simt: ");
  EXPECT_DEATH(run([] {
                 if (threadIdx.x % 2 == 0) {
                   WarpBarrier();
                 } else {
                   ShuffleDown(1, 1);
                 }
               }),
               "different collectives");
  EXPECT_DEATH(run([] {
                 if (threadIdx.x != 3) ShuffleDown(1, 1);
               }),
               "simt: ");
  EXPECT_DEATH(run([] { LoadConstant128(bytes + 4); }), "not aligned");
  EXPECT_DEATH(Launch({1}, {33}, [] {}), "32, 64");
  EXPECT_DEATH(Launch({1, 65536}, {32}, [] {}), "65535 along y and z");
  EXPECT_DEATH(Launch({1}, {1, 1, 128}, [] {}), "64 threads along z");
  EXPECT_DEATH(ThreadIndex(), "outside a launch");
}

}  // namespace
}  // namespace tern::simt
