// The CUDA activation quantizer, run from the very source that nvcc compiles, against the scalar
// oracle: equal codes, scales, sums and padding for every alignment, in order and with shuffled
// schedules. What lies between and beyond the rows is huge, so that an element too many shows in
// gamma, and must be there afterwards.
#include "kernels/absmax_quantize/absmax_quantize.cuh"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/absmax_quantize/absmax_quantize_impl.h"
#include "kernels/ternary_pack/t2.h"
#include "tests/kernels/isa_test_util.h"
#include "tests/simt/device_buffer.h"

namespace tern::kernels {
namespace {

constexpr float kHuge = 3e38f;

struct Quantized {
  std::vector<int8_t> q;
  std::vector<float> gamma;
  std::vector<int32_t> sum;
  bool operator==(const Quantized&) const = default;
};

struct Problem {
  // Rows of k values of size `scale`, `gap_x` and `gap_q` elements between them.
  Problem(int64_t m, int64_t k, float scale, int64_t gap_x = 0, int64_t gap_q = 0)
      : m(m), k(k), ldx(k + gap_x), ldq(T2PaddedK(k) + gap_q), x(Rows(scale)) {}

  std::vector<float> Rows(float scale) const {
    std::vector<float> rows = RandomFloats(m * ldx, static_cast<uint32_t>(m * 10007 + k), scale);
    for (int64_t i = 0; i < m * ldx; ++i) {
      if (i % ldx >= k) rows[static_cast<size_t>(i)] = kHuge;
    }
    return rows;
  }

  Quantized Oracle() const {
    Quantized out{std::vector<int8_t>(static_cast<size_t>(m * ldq), 55),
                  std::vector<float>(static_cast<size_t>(m)),
                  std::vector<int32_t>(static_cast<size_t>(m))};
    for (int64_t row = 0; row < m; ++row) {
      AbsmaxQuantizeRowRef(x.data() + row * ldx, k, T2PaddedK(k), out.q.data() + row * ldq,
                           out.gamma.data() + row, out.sum.data() + row);
    }
    return out;
  }

  Quantized Emulated(const simt::LaunchOptions& options = {}) const {
    DeviceBuffer<int8_t> q(m * ldq, 55);
    DeviceBuffer<float> gamma(m, -1.0f);
    DeviceBuffer<int32_t> sum(m, -1);
    const AbsmaxQuantizeArgs args{x.data(),
                                  q.data(),
                                  gamma.data(),
                                  sum.data(),
                                  static_cast<int>(m),
                                  static_cast<int>(k),
                                  static_cast<int>(T2PaddedK(k)),
                                  ldx,
                                  ldq};
    simt::Launch(
        {static_cast<unsigned>(m)}, {kRowThreads}, [&] { AbsmaxQuantizeKernel(args); }, options);
    return {q.ToVector(), gamma.ToVector(), sum.ToVector()};
  }

  int64_t m, k, ldx, ldq;
  DeviceBuffer<float> x;
};

TEST(AbsmaxQuantizeCudaTest, EqualsTheOracle) {
  for (int64_t k : {0, 1, 3, 4, 5, 127, 128, 129, 1000, 1024, 1025, 2560, 2563}) {
    for (float scale : {0.0f, 1e-7f, 1.0f, 1e30f}) {
      for (int64_t gap : {0, 1, 4}) {
        const Problem problem(k > 1000 ? 2 : 5, k, scale, gap, 3 * gap);
        EXPECT_EQ(problem.Emulated(), problem.Oracle())
            << "k " << k << " x " << scale << " + " << gap;
      }
    }
  }
}

TEST(AbsmaxQuantizeCudaTest, ShuffledSchedulesChangeNothing) {
  for (int64_t k : {100, 2560}) {
    const Problem problem(3, k, 1.0f, 5);
    const Quantized expected = problem.Oracle();
    for (uint32_t seed = 1; seed <= 5; ++seed) {
      EXPECT_EQ(problem.Emulated({.shuffle = true, .seed = seed}), expected) << k << " " << seed;
    }
  }
}

// Halves go to the even neighbour and a maximum of either sign is 127 or -127: gamma = 127, s = 1.
TEST(AbsmaxQuantizeCudaTest, RoundsHalfToEvenByHand) {
  Problem problem(1, 8, 0.0f);
  const std::vector<float> x = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -127.0f, 126.5f, 0.4999f};
  for (size_t i = 0; i < x.size(); ++i) problem.x.data()[i] = x[i];
  const Quantized out = problem.Emulated();
  const std::vector<int8_t> expected = {0, 2, 2, 0, -2, -127, 126, 0};
  EXPECT_EQ(std::vector<int8_t>(out.q.begin(), out.q.begin() + 8), expected);
  EXPECT_EQ(out.gamma[0], 127.0f);
  EXPECT_EQ(out.sum[0], 1);
}

// The barriers matter: without them threads use the maxima of a row before, and TSan names the
// store to shared memory, or the function that it is inlined into.
#if defined(TERN_SIMT_TSAN)
TEST(AbsmaxQuantizeCudaDeathTest, RaceDetectorFindsAMissingBarrier) {
  const Problem problem(1, 2560, 1.0f);
  EXPECT_DEATH(problem.Emulated({.skip_block_barriers = true}), "data race.*(\n.*)*(OfBlock|QuantizeRow)");
}
#else
TEST(AbsmaxQuantizeCudaTest, MissingBarrierGivesWrongResults) {
  Problem(1, 2560, 1e30f).Emulated();  // Leaves its maxima in shared memory.
  const Problem problem(1, 2560, 1.0f);
  EXPECT_NE(problem.Emulated({.skip_block_barriers = true}), problem.Oracle());
}
#endif

#if defined(__SANITIZE_ADDRESS__)
// A k too large by one reads beyond the last row.
TEST(AbsmaxQuantizeCudaDeathTest, AddressSanitizerFindsAnElementTooMany) {
  Problem problem(2, 125, 1.0f);
  problem.k = 126;
  EXPECT_DEATH(problem.Emulated(), "heap-buffer-overflow.*(\n.*)*(LoadFour|QuantizeRow)");
}
#endif

}  // namespace
}  // namespace tern::kernels
