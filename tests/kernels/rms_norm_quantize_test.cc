// The fused norm and quantizer on the CPU: every instruction set and every cut of the rows equals
// the scalar oracle bit for bit, and the oracle equals the two separate operations. What lies
// between the rows of q stays.
#include "kernels/rms_norm_quantize/rms_norm_quantize.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/absmax_quantize/absmax_quantize.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rms_norm_quantize/rms_norm_quantize_impl.h"
#include "tests/kernels/isa_test_util.h"

namespace tern::kernels {
namespace {

struct Problem {
  Problem(int64_t m, int64_t d, float scale)
      : m(m),
        d(d),
        x(RandomFloats(m * d, static_cast<uint32_t>(d), scale)),
        g(RandomFloats(d, 2)) {}

  struct Result {
    std::vector<int8_t> q;
    std::vector<float> gamma, inv_rms;
    std::vector<int32_t> sum;
    bool operator==(const Result&) const = default;
  };

  template <class Run>
  Result Make(const Run& run) const {
    const int64_t ldq = T2PaddedK(d) + 3;
    const auto rows = static_cast<size_t>(m);
    Result r{std::vector<int8_t>(static_cast<size_t>(m * ldq), 55), std::vector<float>(rows, -1),
             std::vector<float>(rows, -1), std::vector<int32_t>(rows, -1)};
    run(RmsNormQuantizeArgs{x.data(), g.data(), m, d, 1e-6f, r.q.data(), ldq, r.gamma.data(),
                            r.sum.data(), r.inv_rms.data()});
    return r;
  }

  int64_t m, d;
  std::vector<float> x, g;
};

TEST(RmsNormQuantizeTest, EqualsTheOracle) {
  const ParallelFor cuts[] = {SerialFor, UnevenFor, OneByOneFor};
  for (int64_t d : {1, 7, 16, 64, 100, 256, 1000, 2560}) {
    for (int64_t m : {0, 1, 3, 17}) {
      // 1e30: the sum of squares is Inf, inv_rms 0 and so is every code.
      for (float scale : {0.0f, 1e-6f, 1.0f, 1e15f, 1e30f}) {
        const Problem problem(m, d, scale);
        const auto expected = problem.Make(RmsNormQuantizeRef);
        ForEachIsa([&](Isa isa) {
          for (const ParallelFor& parallel : cuts) {
            EXPECT_EQ(problem.Make([&](const auto& args) { RmsNormQuantize(args, parallel); }),
                      expected)
                << ToString(isa) << " d " << d << " m " << m << " x " << scale;
          }
        });
      }
    }
  }
}

TEST(RmsNormQuantizeTest, IsTheNormThenTheQuantizer) {
  const Problem problem(5, 300, 2.0f);
  const auto fused = problem.Make([](const auto& args) { RmsNormQuantize(args, SerialFor); });
  const auto separate = problem.Make([](const RmsNormQuantizeArgs& args) {
    std::vector<float> y(static_cast<size_t>(args.m * args.d));
    RmsNormForward(args.x, args.g, args.m, args.d, args.eps, y.data(), args.inv_rms, SerialFor);
    AbsmaxQuantize(y.data(), 0, args.m, args.d, args.d, args.q, args.ldq, args.gamma, args.sum);
  });
  EXPECT_EQ(fused, separate);
}

// x = 3, 4 and g = 1: inv_rms = 1 / sqrt(12.5), y = 0.8485, 1.1314, codes rint(127 * 3 / 4) = 95
// and 127.
TEST(RmsNormQuantizeTest, ByHand) {
  Problem problem(1, 2, 1.0f);
  problem.x = {3.0f, -4.0f};
  problem.g = {1.0f, 1.0f};
  const auto result = problem.Make([](const auto& args) { RmsNormQuantize(args, SerialFor); });
  EXPECT_EQ(result.q[0], 95);
  EXPECT_EQ(result.q[1], -127);
  EXPECT_EQ(result.q[2], 0);
  EXPECT_EQ(result.sum[0], -32);
  EXPECT_NEAR(result.gamma[0], 1.131371, 1e-6);  // 4 / sqrt(12.5); eps moves it by 5e-8.
}

}  // namespace
}  // namespace tern::kernels
