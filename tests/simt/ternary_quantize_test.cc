// The CUDA weight quantizer, run from the very source that nvcc compiles, against the scalar
// oracle: beta, packed bytes and counts bit for bit, in order and with shuffled schedules.
#include "kernels/ternary_quantize/ternary_quantize.cuh"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/ternary_pack/t2.h"
#include "kernels/ternary_quantize/ternary_quantize_impl.h"
#include "kernels/ternary_quantize/ternary_scale.cuh"
#include "tests/kernels/isa_test_util.h"
#include "tests/simt/device_buffer.h"

namespace tern::kernels {
namespace {

struct Result {
  std::vector<uint8_t> t2;
  int64_t zeros = 0, flips = 0;
  bool operator==(const Result&) const = default;
};

struct Problem {
  Problem(int64_t n, int64_t k, uint32_t seed, int64_t skip = 0)
      : n(n), k(k), skip(skip), w(RandomFloats(n * k + skip, seed)) {
    previous = PackMatrix(RandomTernary(n * k, seed + 1), n, k);
    // An exact half of beta rounds to 0, NaN becomes 1.
    if (n * k > 5) w.data()[skip + 3] = beta / 2, w.data()[skip + 5] = std::nanf("");
  }

  Result Oracle(bool compare) const {
    Result out{std::vector<uint8_t>(previous.size(), 0xFF)};
    const TernaryCounts counts = TernaryQuantizeRowsRef(
        w.data() + skip, 0, n, k, 1.0f / beta, out.t2.data(), compare ? previous.data() : nullptr);
    out.zeros = counts.zeros, out.flips = counts.flips;
    return out;
  }

  // In place: t2 holds the previous codes and is overwritten.
  Result Emulated(bool compare, unsigned blocks, const simt::LaunchOptions& options = {}) const {
    DeviceBuffer<uint8_t> t2(previous);
    DeviceBuffer<TernaryCounts> counts(1, {});
    const TernaryQuantizeCudaArgs args{
        w.data() + skip, &beta, t2.data(),           compare ? t2.data() : nullptr,
        counts.data(),   n,     static_cast<int>(k), static_cast<int>(T2PaddedK(k))};
    simt::Launch(
        {blocks}, {kRowThreads}, [&] { TernaryQuantizeKernel(args); }, options);
    return {t2.ToVector(), counts.data()->zeros, counts.data()->flips};
  }

  int64_t n, k, skip;
  float beta = 0.625f;
  DeviceBuffer<float> w;
  std::vector<uint8_t> previous;
};

TEST(TernaryQuantizeCudaTest, EqualsTheOracle) {
  for (int64_t n : {1, 7, 8, 9, 33}) {
    for (int64_t k : {1, 4, 31, 33, 127, 128, 129, 640, 1001, 2560}) {
      for (int64_t skip : {0, 1}) {  // 1: no row is aligned.
        const Problem problem(n, k, static_cast<uint32_t>(n * 10000 + k), skip);
        for (unsigned blocks : {1u, 3u}) {
          EXPECT_EQ(problem.Emulated(true, blocks), problem.Oracle(true)) << n << " x " << k;
          EXPECT_EQ(problem.Emulated(false, blocks), problem.Oracle(false)) << n << " x " << k;
        }
        EXPECT_EQ(problem.Emulated(true, 2, {.shuffle = true, .seed = 3}), problem.Oracle(true))
            << n << " x " << k;
      }
    }
  }
}

float EmulatedScale(const DeviceBuffer<float>& w, int64_t count,
                    const simt::LaunchOptions& options = {}) {
  const int64_t blocks = (count + kAbsMeanBlock - 1) / kAbsMeanBlock;
  DeviceBuffer<float> sums(blocks, -1.0f), beta(1, -1.0f);
  const auto grid = static_cast<unsigned>((blocks + kScaleChains - 1) / kScaleChains);
  simt::Launch(
      {grid}, {kRowThreads}, [&] { AbsBlockSumsKernel(w.data(), count, sums.data()); }, options);
  simt::Launch(
      {1}, {kRowThreads}, [&] { JoinBlockSumsKernel(sums.data(), count, beta.data()); }, options);
  return *beta.data();
}

TEST(TernaryScaleCudaTest, EqualsTheOracle) {
  for (int64_t count : {1, 63, 64, 65, 4095, 4096, 4097, 3 * 4096 + 5, 33 * 4096 + 100}) {
    const DeviceBuffer<float> w(RandomFloats(count, static_cast<uint32_t>(count)));
    const float expected = TernaryScaleRef(w.data(), count);
    EXPECT_EQ(EmulatedScale(w, count), expected) << count;
    EXPECT_EQ(EmulatedScale(w, count, {.shuffle = true, .seed = 5}), expected) << count;
  }
  const DeviceBuffer<float> zeros(5000, 0.0f), nan(5000, std::nanf(""));
  EXPECT_EQ(EmulatedScale(zeros, 5000), kScaleFloor);
  EXPECT_TRUE(std::isnan(EmulatedScale(nan, 5000)));
}

// More sums than the joining kernel stages at once; small integers, whose sums are exact.
TEST(TernaryScaleCudaTest, JoinsManyBlocks) {
  for (int64_t blocks : {255, 256, 257, 1000}) {
    DeviceBuffer<float> sums(blocks, 0.0f), beta(1, -1.0f);
    int64_t total = 0;
    for (int64_t b = 0; b < blocks; ++b) {
      sums.data()[b] = static_cast<float>(b % 1000);
      total += b % 1000;
    }
    const int64_t count = blocks * kAbsMeanBlock;
    simt::Launch({1}, {kRowThreads}, [&] { JoinBlockSumsKernel(sums.data(), count, beta.data()); });
    EXPECT_EQ(*beta.data(),
              static_cast<float>(static_cast<double>(total) / static_cast<double>(count)));
  }
}

// The barriers of the scale matter: without them chains add what is not staged yet, and TSan names
// the store to shared memory.
#if defined(TERN_SIMT_TSAN)
TEST(TernaryScaleCudaDeathTest, RaceDetectorFindsAMissingBarrier) {
  const DeviceBuffer<float> w(RandomFloats(9000, 1));
  EXPECT_DEATH(EmulatedScale(w, 9000, {.skip_block_barriers = true}),
               "data race.*(\n.*)*AbsBlockSumsKernel");
}
#else
TEST(TernaryScaleCudaTest, MissingBarrierGivesWrongResults) {
  const DeviceBuffer<float> huge(RandomFloats(9000, 2, 1e20f)), w(RandomFloats(9000, 1));
  EmulatedScale(huge, 9000);  // Leaves its values in shared memory.
  EXPECT_NE(EmulatedScale(w, 9000, {.skip_block_barriers = true}), TernaryScaleRef(w.data(), 9000));
}
#endif

#if defined(__SANITIZE_ADDRESS__)
TEST(TernaryQuantizeCudaDeathTest, AddressSanitizerFindsARowTooMany) {
  Problem problem(8, 128, 1);
  problem.n = 9;
  EXPECT_DEATH(problem.Emulated(false, 1), "heap-buffer-overflow");
}
#endif

}  // namespace
}  // namespace tern::kernels
