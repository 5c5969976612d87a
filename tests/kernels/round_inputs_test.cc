// Rounded inputs against their definition, one element at a time, and by hand.
#include "kernels/round_inputs/round_inputs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/fp8/fp8.h"
#include "kernels/fp8/fp8_impl.h"
#include "tests/kernels/isa_test_util.h"

namespace tern::kernels {
namespace {

std::vector<float> Round(const std::vector<float>& x, int64_t m, int64_t k, int64_t group, bool fp8,
                         float scale = 0) {
  std::vector<float> out(x.size(), -77.0f);
  RoundInputsArgs args;
  args.x = x.data();
  args.out = out.data();
  args.m = m;
  args.k = k;
  args.group = group;
  args.scale = scale;
  args.fp8 = fp8;
  RoundInputs(args, SerialFor);
  return out;
}

// compressed-tensors: scale = amax / ((qmax - qmin) / 2), code = clamp(round(x / scale)).
TEST(RoundInputsTest, IsItsDefinition) {
  for (const bool fp8 : {false, true}) {
    for (const int64_t k : {int64_t{0}, int64_t{1}, int64_t{31}, int64_t{300}}) {
      for (const int64_t group : {int64_t{0}, int64_t{7}, int64_t{400}}) {
        const int64_t m = 5, length = group > 0 ? std::min(group, k) : k;
        std::vector<float> x = RandomFloats(m * k, 8, 5.0f);
        std::fill(x.begin() + k, x.begin() + 2 * k, 0.0f);  // A token of zeros
        const std::vector<float> got = Round(x, m, k, group, fp8);
        for (int64_t i = 0; i < m * k; ++i) {
          const int64_t row = i / k * k, begin = row + (i - row) / length * length;
          float amax = 0;
          for (int64_t j = begin; j < std::min(begin + length, row + k); ++j)
            amax = std::max(amax, std::fabs(x[static_cast<size_t>(j)]));
          const float scale = amax / (fp8 ? 448.0f : 127.5f);
          const float quotient = x[static_cast<size_t>(i)] / scale;
          const float code = fp8 ? E4M3ToFp32Ref(Fp32ToE4M3Ref(quotient))
                                 : std::clamp(std::nearbyint(quotient), -128.0f, 127.0f);
          ASSERT_EQ(got[static_cast<size_t>(i)], amax > 0 ? scale * code : 0.0f) << k << " " << i;
        }
      }
    }
  }
}

// amax = 127.5 makes the scale 1: the positive extreme is clipped to 127, the negative one is not.
TEST(RoundInputsTest, IntegersByHand) {
  EXPECT_EQ(Round({127.5f, -127.5f, 0.5f, 1.5f, -2.5f, 3.51f}, 1, 6, 0, false),
            (std::vector<float>{127, -128, 0, 2, -2, 4}));
  EXPECT_EQ(Round({1.0f, 300.0f, -300.0f}, 1, 3, 0, false, 1.0f),
            (std::vector<float>{1, 127, -128}));
}

TEST(RoundInputsTest, NanStaysAndSpreadsToNoOther) {
  for (const bool fp8 : {false, true}) {
    const std::vector<float> out =
        Round({std::numeric_limits<float>::quiet_NaN(), 1.0f}, 1, 2, 0, fp8);
    EXPECT_TRUE(std::isnan(out[0])) << fp8;
    EXPECT_NEAR(out[1], 1.0f, 0.01f) << fp8;
  }
}

}  // namespace
}  // namespace tern::kernels
