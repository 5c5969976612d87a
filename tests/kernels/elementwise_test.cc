// exp, the gate and the bfloat16 conversions. Every instruction set equals the scalar oracle bit
// for bit (same operations, no FMA); the oracles are compared with fp64 or with facts of the
// formats.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "kernels/bf16/bf16.h"
#include "kernels/bf16/bf16_impl.h"
#include "kernels/common/exp.h"
#include "kernels/gated_ffn/gated_ffn.h"
#include "kernels/gated_ffn/gated_ffn_impl.h"
#include "tests/kernels/isa_test_util.h"

namespace tern::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// Size of one unit in the last place of the float nearest to `value` (subnormal spacing below the
// normals).
double Ulp(double value) {
  const int exponent = std::max(std::ilogb(value), -126);
  return std::ldexp(1.0, exponent - 23);
}

TEST(ExpTest, WithinTwoUlpOfFp64) {
  double worst = 0.0;
  for (float x = -104.0f; x < 88.8f; x += 1.37e-4f) {
    const double exact = std::exp(static_cast<double>(x));
    if (exact > std::numeric_limits<float>::max()) break;
    worst = std::max(worst, std::fabs(static_cast<double>(Exp(x)) - exact) / Ulp(exact));
  }
  EXPECT_LT(worst, 2.0);
  RecordProperty("worst_ulp", std::to_string(worst));
}

TEST(ExpTest, Limits) {
  EXPECT_EQ(Exp(0.0f), 1.0f);
  EXPECT_EQ(Exp(-0.0f), 1.0f);
  for (float x : {-kInf, -1e30f, -200.0f, -104.5f}) EXPECT_EQ(Exp(x), 0.0f) << x;
  for (float x : {kInf, 1e30f, 200.0f, 88.8f}) EXPECT_EQ(Exp(x), kInf) << x;
  EXPECT_TRUE(std::isnan(Exp(std::nanf(""))));
  EXPECT_GT(Exp(-103.0f), 0.0f);  // Subnormal, not flushed.
  EXPECT_LT(Exp(88.7f), kInf);
}

std::vector<float> GateInputs(int64_t count, uint32_t seed) {
  std::vector<float> values = RandomFloats(count, seed, 4.0f);
  const float special[] = {0.0f,   -0.0f,   1e30f,  -1e30f, 88.0f, -88.0f,
                           104.0f, -104.0f, 1e-40f, -3e38f, 3e38f};
  for (size_t i = 0; i < std::size(special) && 3 * i < values.size(); ++i)
    values[3 * i] = special[i];
  return values;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](float x, float y) {
           return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y);
         });
}

TEST(GatedFfnTest, EqualsTheOracle) {
  for (GateActivation activation : {GateActivation::kSilu, GateActivation::kSquaredRelu}) {
    for (int64_t count : {0, 1, 7, 8, 15, 16, 17, 33, 1000, 40001}) {
      const auto gate = GateInputs(count, 1), up = RandomFloats(count, 2),
                 dh = RandomFloats(count, 3);
      std::vector<float> h_ref(gate.size()), dgate_ref(gate.size()), dup_ref(gate.size());
      GatedFfnForwardRef(activation, gate.data(), up.data(), count, h_ref.data());
      GatedFfnBackwardRef(activation, dh.data(), gate.data(), up.data(), count, dgate_ref.data(),
                          dup_ref.data());
      ForEachIsa([&](Isa isa) {
        std::vector<float> h(gate.size()), dgate = gate, dup = up;
        GatedFfnForward(activation, gate.data(), up.data(), count, h.data(), UnevenFor);
        EXPECT_TRUE(SameBits(h, h_ref)) << ToString(isa) << " " << count;
        // In place over its inputs.
        GatedFfnBackward(activation, dh.data(), dgate.data(), dup.data(), count, dgate.data(),
                         dup.data(), UnevenFor);
        EXPECT_TRUE(SameBits(dgate, dgate_ref)) << ToString(isa) << " " << count;
        EXPECT_TRUE(SameBits(dup, dup_ref)) << ToString(isa) << " " << count;
      });
    }
  }
}

double Act(GateActivation activation, double z) {
  if (activation == GateActivation::kSquaredRelu) return z > 0 ? z * z : 0.0;
  return z / (1.0 + std::exp(-z));
}

// Against fp64, the slope by central differences (step 1e-5: error of order 1e-10 plus 1e-11 of
// rounding, far below fp32). fp32: exp within 2 ulp and five further roundings; the factor 1 + z (1
// - s) may cancel, hence the absolute part.
TEST(GatedFfnTest, MatchesTheFormulas) {
  constexpr double kEps = 0x1.0p-24;
  for (GateActivation activation : {GateActivation::kSilu, GateActivation::kSquaredRelu}) {
    for (float z = -20.0f; z < 20.0f; z += 0.0137f) {
      const float one = 1.0f;
      float h = 0, dgate = 0, dup = 0;
      GatedFfnForwardRef(activation, &z, &one, 1, &h);
      GatedFfnBackwardRef(activation, &one, &z, &one, 1, &dgate, &dup);
      const double value = Act(activation, z);
      const double slope = (Act(activation, z + 1e-5) - Act(activation, z - 1e-5)) / 2e-5;
      EXPECT_NEAR(h, value, 10 * kEps * std::fabs(value)) << z;
      EXPECT_EQ(dup, h);
      const bool at_kink = activation == GateActivation::kSquaredRelu && std::fabs(z) < 2e-5;
      if (at_kink) continue;
      EXPECT_NEAR(dgate, slope, 10 * kEps * (std::fabs(slope) + std::fabs(z)) + 1e-9) << z;
    }
  }
}

TEST(GatedFfnTest, HugeGatesGiveNoNan) {
  for (float z : {-3e38f, -1e30f, -200.0f, 200.0f, 1e18f}) {
    const float one = 1.0f;
    float dgate = 0, dup = 0;
    GatedFfnBackwardRef(GateActivation::kSilu, &one, &z, &one, 1, &dgate, &dup);
    EXPECT_EQ(dgate, z > 0 ? 1.0f : 0.0f);
    EXPECT_EQ(dup, z > 0 ? z : 0.0f);
  }
}

TEST(Bf16Test, RoundsToNearestEvenByHand) {
  const struct {
    uint32_t from;
    uint16_t to;
  } cases[] = {
      {0x3F800000, 0x3F80}, {0x3F808000, 0x3F80}, {0x3F818000, 0x3F82},
      {0x3F808001, 0x3F81}, {0x3F807FFF, 0x3F80}, {0x00000001, 0x0000},
      {0x00008001, 0x0001}, {0x80018000, 0x8002}, {0x7F7F8000, 0x7F80},  // To Inf.
      {0x7F7F7FFF, 0x7F7F}, {0x7F800000, 0x7F80}, {0xFF800000, 0xFF80},
      {0x7F800001, 0x7FC0},  // NaN stays NaN.
      {0xFFFFFFFF, 0xFFFF}, {0x80000000, 0x8000},
  };
  ForEachIsa([&](Isa isa) {
    for (const auto& c : cases) {
      // 17 copies: whole vectors and a ragged end.
      const std::vector<float> x(17, std::bit_cast<float>(c.from));
      std::vector<uint16_t> half(17);
      std::vector<float> rounded(17);
      Fp32ToBf16(x.data(), 17, half.data(), SerialFor);
      RoundToBf16(x.data(), 17, rounded.data(), SerialFor);
      for (size_t i = 0; i < 17; ++i) {
        EXPECT_EQ(half[i], c.to) << ToString(isa) << std::hex << " " << c.from;
        EXPECT_EQ(std::bit_cast<uint32_t>(rounded[i]), static_cast<uint32_t>(c.to) << 16)
            << ToString(isa);
      }
    }
  });
}

TEST(Bf16Test, EveryBf16SurvivesARoundTrip) {
  std::vector<uint16_t> all(65536), back(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  ForEachIsa([&](Isa isa) {
    std::vector<float> wide(65536);
    Bf16ToFp32(all.data(), 65536, wide.data(), UnevenFor);
    Fp32ToBf16(wide.data(), 65536, back.data(), UnevenFor);
    for (size_t i = 0; i < all.size(); ++i) {
      const bool nan = (all[i] & 0x7FFF) > 0x7F80;
      ASSERT_EQ(back[i], nan ? all[i] | 0x40 : all[i]) << ToString(isa);
    }
  });
}

TEST(Bf16Test, EqualsTheOracle) {
  std::mt19937 random(5);
  for (int64_t count : {0, 1, 7, 9, 16, 31, 1000, 70000}) {
    std::vector<float> x(static_cast<size_t>(count));
    for (float& v : x) v = std::bit_cast<float>(static_cast<uint32_t>(random()));
    std::vector<float> expected(x.size());
    RoundToBf16Ref(x.data(), count, expected.data());
    ForEachIsa([&](Isa isa) {
      std::vector<float> y = x;
      RoundToBf16(y.data(), count, y.data(), UnevenFor);
      EXPECT_TRUE(SameBits(y, expected)) << ToString(isa) << " " << count;
    });
  }
}

}  // namespace
}  // namespace tern::kernels
