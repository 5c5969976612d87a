// The CUDA norm and quantizer, run from the very source that nvcc compiles, against the scalar
// oracle: codes, scales, sums and inv_rms bit for bit, in order and with shuffled schedules; and
// that the data tell one order of summation from another.
#include "kernels/rms_norm_quantize/rms_norm_quantize.cuh"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/rms_norm_quantize/rms_norm_quantize_impl.h"
#include "kernels/ternary_pack/t2.h"
#include "tests/kernels/isa_test_util.h"
#include "tests/simt/device_buffer.h"

namespace tern::kernels {
namespace {

struct Result {
  std::vector<int8_t> q;
  std::vector<float> gamma, inv_rms;
  std::vector<int32_t> sum;
  bool operator==(const Result&) const = default;
};

struct Problem {
  Problem(int64_t m, int64_t d, float scale)
      : m(m),
        d(d),
        x(RandomFloats(m * d, static_cast<uint32_t>(m * 10007 + d), scale)),
        g(RandomFloats(d, 2)) {}

  template <class Run>
  Result Make(const Run& run) const {
    const int64_t ldq = T2PaddedK(d) + 4;
    DeviceBuffer<int8_t> q(m * ldq, 55);
    DeviceBuffer<float> gamma(m, -1.0f), inv_rms(m, -1.0f);
    DeviceBuffer<int32_t> sum(m, -1);
    run(RmsNormQuantizeArgs{x.data(), g.data(), m, d, 1e-6f, q.data(), ldq, gamma.data(),
                            sum.data(), inv_rms.data()});
    return {q.ToVector(), gamma.ToVector(), inv_rms.ToVector(), sum.ToVector()};
  }

  Result Emulated(const simt::LaunchOptions& options = {}) const {
    return Make([&](const RmsNormQuantizeArgs& args) {
      const auto padded_d = static_cast<int>(T2PaddedK(args.d));
      simt::Launch(
          {static_cast<unsigned>(args.m)}, {kRowThreads},
          [&] { RmsNormQuantizeKernel(args, padded_d); }, options);
    });
  }

  int64_t m, d;
  DeviceBuffer<float> x, g;
};

TEST(RmsNormQuantizeCudaTest, EqualsTheOracle) {
  for (int64_t d : {1, 7, 16, 64, 100, 256, 1000, 1024, 1025, 2560}) {
    for (int64_t m : {0, 1, 3, 17}) {
      // 1e30: the sum of squares is Inf, inv_rms 0 and so is every code.
      for (float scale : {0.0f, 1e-6f, 1.0f, 1e15f, 1e30f}) {
        const Problem problem(m, d, scale);
        EXPECT_EQ(problem.Emulated(), problem.Make(RmsNormQuantizeRef))
            << "d " << d << " m " << m << " x " << scale;
      }
    }
  }
}

TEST(RmsNormQuantizeCudaTest, ShuffledSchedulesChangeNothing) {
  for (int64_t d : {100, 2560, 3001}) {  // One tile, and three: both shared tiles are used again.
    const Problem problem(2, d, 1.0f);
    const Result expected = problem.Make(RmsNormQuantizeRef);
    for (uint32_t seed = 1; seed <= 5; ++seed) {
      EXPECT_EQ(problem.Emulated({.shuffle = true, .seed = seed}), expected) << d << " " << seed;
    }
  }
}

// inv_rms of rows summed by a broken kernel: eight lanes where the contract says sixteen.
__global__ void EightLanesKernel(const RmsNormQuantizeArgs args) {
  const int64_t m = blockIdx.x;
  float sum = 0.0f;
  if (threadIdx.x < 8) {
    for (int64_t i = threadIdx.x; i < args.d; i += 8) {
      const float v = args.x[m * args.d + i];
      sum += v * v;
    }
  }
  for (unsigned half = 4; half > 0; half /= 2) sum += simt::ShuffleDownFloat(sum, half);
  if (threadIdx.x == 0) {
    args.inv_rms[m] = 1.0f / sqrtf(sum / static_cast<float>(args.d) + args.eps);
  }
}

TEST(RmsNormQuantizeCudaTest, AnotherOrderOfTheSumIsSeen) {
  const Problem problem(17, 2560, 1.0f);
  const Result broken = problem.Make([](const RmsNormQuantizeArgs& args) {
    simt::Launch({static_cast<unsigned>(args.m)}, {32}, [&] { EightLanesKernel(args); });
  });
  EXPECT_NE(broken.inv_rms, problem.Make(RmsNormQuantizeRef).inv_rms);
}

// The barriers matter: without them a lane adds squares that are not there yet, and TSan names the
// store to shared memory.
#if defined(TERN_SIMT_TSAN)
TEST(RmsNormQuantizeCudaDeathTest, RaceDetectorFindsAMissingBarrier) {
  const Problem problem(1, 2560, 1.0f);
  EXPECT_DEATH(problem.Emulated({.skip_block_barriers = true}), "data race.*(\n.*)*SumOfSquares");
}
#else
TEST(RmsNormQuantizeCudaTest, MissingBarrierGivesWrongResults) {
  Problem(1, 2560, 1e15f).Emulated();  // Leaves its squares in shared memory.
  const Problem problem(1, 2560, 1.0f);
  EXPECT_NE(problem.Emulated({.skip_block_barriers = true}), problem.Make(RmsNormQuantizeRef));
}
#endif

#if defined(__SANITIZE_ADDRESS__)
// A d too large by one reads beyond the last row.
TEST(RmsNormQuantizeCudaDeathTest, AddressSanitizerFindsAnElementTooMany) {
  Problem problem(1, 125, 1.0f);
  problem.d = 126;
  EXPECT_DEATH(problem.Emulated(), "heap-buffer-overflow.*(\n.*)*LoadFour");
}
#endif

}  // namespace
}  // namespace tern::kernels
