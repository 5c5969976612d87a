// The tensor-core ternary product, run from the very source that nvcc compiles, against the CPU
// oracle: exact equality over sizes around every tile edge, in order, with shuffled schedules and
// with several blocks under way; tails neither read nor written beyond; and no bank conflict.
#include "kernels/ternary_gemm/ternary_gemm.cuh"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "kernels/ternary_gemm/ternary_gemm.cu"  // The launcher's host code is the emulator's, too.
#include "kernels/ternary_gemm/ternary_gemm.h"
#include "kernels/ternary_pack/t2.h"
#include "tests/simt/device_buffer.h"

namespace tern::kernels {
namespace {

struct Problem {
  Problem(int m, int n, int k, int ldx_slack = 0)
      : m(m),
        n(n),
        k(k),
        padded_k(static_cast<int>(T2PaddedK(k))),
        ldx(padded_k + ldx_slack),
        w(n * T2RowBytes(k), 0),
        x(static_cast<int64_t>(m) * ldx, 0),
        sums(m, 0),
        scales(m, 0.0f) {
    std::mt19937 random(static_cast<uint32_t>(m * 1000003 + n * 1009 + k));
    std::vector<int8_t> row(static_cast<size_t>(k));
    for (int i = 0; i < n; ++i) {
      for (int8_t& v : row) v = static_cast<int8_t>(static_cast<int>(random() % 3) - 1);
      PackT2Row(row.data(), k, w.data() + i * T2RowBytes(k));
    }
    for (int b = 0; b < m; ++b) {
      for (int i = 0; i < k; ++i) {
        const auto value = static_cast<int8_t>(random());
        x.data()[b * ldx + i] = value;
        sums.data()[b] += value;
      }
      scales.data()[b] = 0.37f + static_cast<float>(b);
    }
  }

  std::vector<float> Oracle() const {
    std::vector<float> y(static_cast<size_t>(m * n));
    TernaryGemmRef({w.data(), x.data(), sums.data(), scales.data(), y.data(), m, n, k, ldx, n});
    return y;
  }

  template <int kTiles>
  simt::LaunchStats Launch(float* y, int ldy, simt::LaunchOptions options) const {
    const TernaryGemmDeviceArgs args{w.data(), x.data(), sums.data(), scales.data(), y,
                                     m,        n,        padded_k,    ldx,           ldy};
    options.dynamic_shared_bytes = kGemmSharedBytes<kTiles>;
    const auto rows = static_cast<unsigned>((n + kGemmTileRows - 1) / kGemmTileRows);
    const auto tokens = static_cast<unsigned>((m + 8 * kTiles - 1) / (8 * kTiles));
    return simt::Launch(
        {rows, tokens}, {kGemmThreads}, [&] { TernaryGemmKernel<kTiles>(args); }, options);
  }

  template <int kTiles>
  std::vector<float> Emulated(const simt::LaunchOptions& options = {}) const {
    DeviceBuffer<float> y(static_cast<int64_t>(m) * n, -1.0f);
    Launch<kTiles>(y.data(), n, options);
    return y.ToVector();
  }

  int m, n, k, padded_k, ldx;
  DeviceBuffer<uint8_t> w;
  DeviceBuffer<int8_t> x;
  DeviceBuffer<int32_t> sums;
  DeviceBuffer<float> scales;
};

// Each size at, below and above a tile edge, not in every combination: a tail of one dimension does
// not depend on the others.
TEST(TernaryGemmCudaTest, EqualsTheOracle) {
  const int sizes[][3] = {{1, 1, 1},    {9, 127, 128},  {31, 128, 129}, {32, 129, 256},
                          {33, 5, 257}, {40, 130, 640}, {3, 33, 2560}};
  for (const auto& [m, n, k] : sizes) {
    const Problem problem(m, n, k);
    EXPECT_EQ(problem.Emulated<4>(), problem.Oracle()) << m << " " << n << " " << k;
  }
  for (const auto& [m, n, k] : {std::array{63, 20, 384}, {64, 128, 1024}, {65, 140, 1}}) {
    const Problem problem(m, n, k);
    EXPECT_EQ(problem.Emulated<8>(), problem.Oracle()) << m << " " << n << " " << k;
  }
}

TEST(TernaryGemmCudaTest, ShuffledSchedulesAndInterleavedBlocksChangeNothing) {
  const Problem problem(37, 260, 1300);  // 2 x 3 blocks, 6 steps: every stage is used twice.
  const std::vector<float> expected = problem.Oracle();
  for (uint32_t seed = 1; seed <= 2; ++seed) {
    EXPECT_EQ(problem.Emulated<4>({.shuffle = true, .seed = seed}), expected) << seed;
  }
  EXPECT_EQ(problem.Emulated<4>({.shuffle = true, .seed = 3, .resident_blocks = 3}), expected);
  EXPECT_EQ(problem.Emulated<4>({.resident_blocks = 2}), expected);
}

TEST(TernaryGemmCudaTest, StridesAndWhatLiesBesideAreKept) {
  const Problem problem(5, 20, 200, /*ldx_slack=*/16);
  const int ldy = 160, tokens = 40;  // A whole tile and more, of which 5 x 20 are the result's.
  DeviceBuffer<float> y(tokens * ldy, -7.0f);
  problem.Launch<4>(y.data(), ldy, {});
  const std::vector<float> expected = problem.Oracle();
  for (int b = 0; b < tokens; ++b) {
    for (int i = 0; i < ldy; ++i) {
      const float want = b < 5 && i < 20 ? expected[static_cast<size_t>(b * 20 + i)] : -7.0f;
      EXPECT_EQ(y.data()[b * ldy + i], want) << b << " " << i;
    }
  }
}

TEST(TernaryGemmCudaTest, LauncherPicksTheTileAndRefusesWhatTheKernelCannotTake) {
  for (int m : {9, 32, 33, 70}) {
    const Problem problem(m, 131, 300);
    DeviceBuffer<float> y(static_cast<int64_t>(m) * 131, -1.0f);
    TernaryGemmArgs args{problem.w.data(),
                         problem.x.data(),
                         problem.sums.data(),
                         problem.scales.data(),
                         y.data(),
                         m,
                         131,
                         300,
                         problem.ldx,
                         131};
    EXPECT_STREQ(LaunchTernaryGemm(args, nullptr), nullptr);
    EXPECT_EQ(y.ToVector(), problem.Oracle());
    const auto refused = [&](const char* part, auto change) {
      TernaryGemmArgs wrong = args;
      change(wrong);
      const char* error = LaunchTernaryGemm(wrong, nullptr);
      EXPECT_TRUE(error != nullptr && std::string(error).find(part) != std::string::npos) << part;
    };
    refused("ldx", [](TernaryGemmArgs& wrong) { wrong.ldx += 8; });
    refused("ldx", [](TernaryGemmArgs& wrong) { wrong.ldx = 256; });
    refused("ldy", [](TernaryGemmArgs& wrong) { wrong.ldy = 130; });
    refused("aligned", [](TernaryGemmArgs& wrong) { wrong.x += 1; });
    refused("negative", [](TernaryGemmArgs& wrong) { wrong.m = -1; });
    refused("split", [](TernaryGemmArgs& wrong) { wrong.m = int64_t{1} << 30; });
  }
}

// Shared memory is read and filled without a bank conflict; what is read from global memory fills
// its sectors.
TEST(TernaryGemmCudaTest, AddressesDoNotConflict) {
  const Problem problem(64, 128, 512);
  DeviceBuffer<float> y(64 * 128, 0.0f);
  const simt::LaunchStats stats = problem.Launch<8>(y.data(), 128, {.count_traffic = true});
  std::printf("%s", simt::TrafficTable(stats).c_str());
  ASSERT_EQ(stats.traffic.size(), 4u);
  for (const simt::SiteTraffic& site : stats.traffic) {
    EXPECT_EQ(site.transactions, site.ideal) << site.file << ":" << site.line;
  }
}

// Its one barrier a step matters: without it a warp reads what another has not copied yet.
#if defined(TERN_SIMT_TSAN)
TEST(TernaryGemmCudaDeathTest, RaceDetectorFindsAMissingBarrier) {
  const Problem problem(9, 40, 640);
  EXPECT_DEATH(problem.Emulated<4>({.skip_block_barriers = true}),
               "data race.*(\n.*)*TernaryGemmKernel");
}
#elif defined(__SANITIZE_ADDRESS__)
TEST(TernaryGemmCudaDeathTest, ReadingBeforeAnotherThreadWaitedIsReported) {
  const Problem problem(9, 40, 640);
  EXPECT_DEATH(problem.Emulated<4>({.skip_block_barriers = true}), "use-after-poison");
}
#else
TEST(TernaryGemmCudaTest, MissingBarrierGivesWrongResults) {
  const Problem problem(9, 40, 640);
  EXPECT_NE(problem.Emulated<4>({.skip_block_barriers = true}), problem.Oracle());
}
#endif

}  // namespace
}  // namespace tern::kernels
