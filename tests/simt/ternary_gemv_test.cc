// The CUDA ternary products for few vectors (dp4a, and tensor cores), run from the very sources
// that nvcc compiles, against the CPU oracle: exact equality, in order, with shuffled schedules and
// interleaved blocks, for every batch instance and both ways of splitting rows.
#include "kernels/ternary_gemm/ternary_gemv.cuh"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernels/ternary_gemm/ternary_gemm.h"
#include "kernels/ternary_gemm/ternary_gemv.cu"  // The launcher's host code is the emulator's, too.
#include "kernels/ternary_gemm/ternary_gemv_mma.cuh"
#include "kernels/ternary_pack/t2.h"
#include "tests/simt/device_buffer.h"

namespace tern::kernels {
namespace {

struct Problem {
  Problem(int batch, int n, int k, uint32_t seed)
      : batch(batch),
        n(n),
        k(k),
        padded_k(static_cast<int>(T2PaddedK(k))),
        w(n * T2RowBytes(k), 0),
        x(static_cast<int64_t>(batch) * padded_k, 0) {
    std::mt19937 random(seed);
    std::vector<int8_t> row(static_cast<size_t>(k));
    for (int i = 0; i < n; ++i) {
      for (int8_t& v : row) v = static_cast<int8_t>(static_cast<int>(random() % 3) - 1);
      PackT2Row(row.data(), k, w.data() + i * T2RowBytes(k));
    }
    for (int b = 0; b < batch; ++b) {
      int32_t sum = 0;
      for (int i = 0; i < padded_k; ++i) {
        const int8_t value = i < k ? static_cast<int8_t>(random()) : int8_t{0};
        x.data()[b * padded_k + i] = value;
        sum += value;
      }
      sums.push_back(sum);
      scales.push_back(0.37f + static_cast<float>(b));
    }
  }

  std::vector<float> Oracle() const {
    std::vector<float> y(static_cast<size_t>(batch * n));
    TernaryGemmRef(
        {w.data(), x.data(), sums.data(), scales.data(), y.data(), batch, n, k, padded_k, n});
    return y;
  }

  template <int kBatch>
  std::vector<float> Emulated(bool split, const simt::LaunchOptions& options) const {
    std::vector<float> y(static_cast<size_t>(batch * n), -1.0f);
    const TernaryGemvArgs args{
        w.data(), x.data(), sums.data(), scales.data(), y.data(), n, padded_k, padded_k, n};
    const unsigned rows = static_cast<unsigned>(n);
    const unsigned blocks = split ? rows : (rows + kGemvBlockWarps - 1) / kGemvBlockWarps;
    simt::Launch(
        {blocks}, {kGemvBlockThreads},
        [&] {
          if (split) {
            TernaryGemvKernel<kBatch, kGemvBlockWarps>(args);
          } else {
            TernaryGemvKernel<kBatch, 1>(args);
          }
        },
        options);
    return y;
  }

  std::vector<float> EmulatedMma(const simt::LaunchOptions& options = {}) const {
    const int ldy = n + 1, rows = batch + 1;  // A column and a row that no one may write.
    DeviceBuffer<float> y(static_cast<int64_t>(rows) * ldy, -1.0f);
    const TernaryGemvArgs args{w.data(), x.data(), sums.data(), scales.data(), y.data(), n,
                               padded_k, padded_k, ldy};
    const auto blocks = static_cast<unsigned>((n + kGemvMmaRows - 1) / kGemvMmaRows);
    simt::Launch(
        {blocks}, {kGemvMmaThreads}, [&] { TernaryGemvMmaKernel(args, batch); }, options);
    std::vector<float> out;
    for (int b = 0; b < rows; ++b) {
      for (int i = 0; i < ldy; ++i) {
        const float value = y.data()[b * ldy + i];
        if (b < batch && i < n) {
          out.push_back(value);
        } else {
          EXPECT_EQ(value, -1.0f) << "written beyond the result: " << b << " " << i;
        }
      }
    }
    return out;
  }

  int batch, n, k, padded_k;
  DeviceBuffer<uint8_t> w;
  DeviceBuffer<int8_t> x;
  std::vector<int32_t> sums;
  std::vector<float> scales;
};

template <int kBatch>
void ExpectExact() {
  for (int n : {1, 4, 5, 33}) {
    for (int k : {1, 128, 129, 640, 2560}) {
      const Problem problem(kBatch, n, k, static_cast<uint32_t>(n * 10000 + k));
      const std::vector<float> expected = problem.Oracle();
      for (bool split : {false, true}) {
        EXPECT_EQ(problem.template Emulated<kBatch>(split, {}), expected)
            << "n " << n << " k " << k;
        for (uint32_t seed : {1u, 2u}) {
          EXPECT_EQ(problem.template Emulated<kBatch>(split, {.shuffle = true, .seed = seed}),
                    expected)
              << "n " << n << " k " << k << " shuffled " << seed;
        }
      }
    }
  }
}

TEST(TernaryGemvCudaTest, EqualsTheOracleBatch1) { ExpectExact<1>(); }
TEST(TernaryGemvCudaTest, EqualsTheOracleBatch2) { ExpectExact<2>(); }
TEST(TernaryGemvCudaTest, EqualsTheOracleBatch3) { ExpectExact<3>(); }

TEST(TernaryGemvMmaCudaTest, EqualsTheOracle) {
  for (int batch : {1, 3, 4, 7, 8}) {
    for (int n : {1, 15, 16, 40}) {
      for (int k : {1, 128, 129, 384, 2000, 2200, 2560}) {
        const Problem problem(batch, n, k, static_cast<uint32_t>(n * 10000 + k));
        EXPECT_EQ(problem.EmulatedMma(), problem.Oracle()) << batch << " " << n << " " << k;
      }
    }
  }
}

TEST(TernaryGemvMmaCudaTest, ShuffledSchedulesAndInterleavedBlocksChangeNothing) {
  const Problem problem(8, 70, 2432, 5);
  const std::vector<float> expected = problem.Oracle();
  for (uint32_t seed = 1; seed <= 2; ++seed) {
    EXPECT_EQ(problem.EmulatedMma({.shuffle = true, .seed = seed}), expected);
    EXPECT_EQ(problem.EmulatedMma({.shuffle = true, .seed = seed, .resident_blocks = 3}), expected);
  }
}

TEST(TernaryGemvCudaTest, LauncherPicksAKernelForEveryBatch) {
  for (int batch = 1; batch <= 8; ++batch) {
    for (int k : {640, 8192}) {  // The latter splits rows.
      const Problem problem(batch, 9, k, 3);
      std::vector<float> y(static_cast<size_t>(batch * 9), -1.0f);
      const TernaryGemvArgs args{problem.w.data(),      problem.x.data(), problem.sums.data(),
                                 problem.scales.data(), y.data(),         9,
                                 problem.padded_k,      problem.padded_k, 9};
      EXPECT_STREQ(LaunchTernaryGemv(args, batch, nullptr), nullptr);
      EXPECT_EQ(y, problem.Oracle()) << batch << " " << k;
      EXPECT_NE(LaunchTernaryGemv(args, 9, nullptr), nullptr);
      EXPECT_NE(LaunchTernaryGemv(args, 0, nullptr), nullptr);
    }
  }
}

// The kernels' one barrier matters: without it the result is wrong, and TSan names the store to
// shared memory.
#if defined(TERN_SIMT_TSAN)
TEST(TernaryGemvCudaDeathTest, RaceDetectorFindsAMissingBarrier) {
  const Problem problem(2, 5, 640, 1);
  EXPECT_DEATH(problem.Emulated<2>(true, {.skip_block_barriers = true}),
               "data race.*(\n.*)*TernaryGemvKernel");
  EXPECT_DEATH(problem.EmulatedMma({.skip_block_barriers = true}),
               "data race.*(\n.*)*TernaryGemvMmaKernel");
}
#else
TEST(TernaryGemvCudaTest, MissingBarrierGivesWrongResults) {
  const Problem problem(2, 5, 640, 1);
  EXPECT_NE(problem.Emulated<2>(true, {.skip_block_barriers = true}), problem.Oracle());
  Problem(8, 16, 2560, 2).EmulatedMma();  // Leaves its sums in shared memory.
  EXPECT_NE(problem.EmulatedMma({.skip_block_barriers = true}), problem.Oracle());
}
#endif

}  // namespace
}  // namespace tern::kernels
