// Rounded inputs and FP8 casts in the emulator: values one at a time against the scalar oracle,
// rows against plain loops bit for bit, and the rules of the FP8 product.
#include "kernels/round_inputs/round_inputs.cu"  // The launcher's host code is the emulator's, too.

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "kernels/fp8/fp8.h"
#include "kernels/gemm/gemm_cuda.h"
#include "tests/kernels/isa_test_util.h"
#include "tests/simt/device_buffer.h"

namespace tern::kernels {
namespace {

// All codes but the two NaNs, which no file that is read may hold.
TEST(Fp8CudaTest, IsDecodedExactly) {
  for (int code = 0; code < 256; ++code) {
    if ((code & 127) == 127) continue;
    const float want = E4M3ToFp32Ref(static_cast<uint8_t>(code));
    EXPECT_EQ(FloatFromE4m3(static_cast<uint8_t>(code)), want) << code;
    EXPECT_EQ(std::signbit(FloatFromE4m3(static_cast<uint8_t>(code))), std::signbit(want));
  }
}

// Every code, every midpoint and its neighbours, what is no number or too large, random bits.
TEST(Fp8CudaTest, EncodesAsTheOracle) {
  std::vector<float> values = {
      std::nanf(""), std::numeric_limits<float>::infinity(),  464.0f, 470.0f, 0.0f, 449.0f,
      3e38f,         std::numeric_limits<float>::denorm_min()};
  for (int code = 0; code < 126; ++code) {
    const float low = E4M3ToFp32Ref(static_cast<uint8_t>(code));
    const float middle = (low + E4M3ToFp32Ref(static_cast<uint8_t>(code + 1))) / 2;
    for (const float value :
         {low, middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e9f)})
      values.push_back(value);
  }
  std::mt19937 random(3);
  for (int i = 0; i < 100000; ++i)
    values.push_back(std::bit_cast<float>(static_cast<uint32_t>(random())));
  for (const float value : values) {
    EXPECT_EQ(E4m3FromFloat(value), Fp32ToE4M3Ref(value)) << value;
    EXPECT_EQ(E4m3FromFloat(-value), Fp32ToE4M3Ref(-value)) << -value;
  }
}

// One row of a group: the scale and the codes' values by their definition.
float RoundGroup(const RoundInputsArgs& args, const float* x, int64_t count, float* out,
                 uint8_t* codes) {
  float amax = 0;
  for (int64_t i = 0; i < count; ++i) amax = std::fmax(amax, std::fabs(x[i]));
  const float scale = args.scale > 0 ? args.scale : amax / (args.fp8 ? 448.0f : 127.5f);
  for (int64_t i = 0; i < count; ++i) {
    out[i] = 0;
    codes[i] = 0;
    if (!(scale > 0)) continue;
    const float quotient = x[i] / scale;
    codes[i] = Fp32ToE4M3Ref(quotient);
    const float rounded = std::isnan(quotient) ? quotient
                          : args.fp8           ? E4M3ToFp32Ref(codes[i])
                                     : std::clamp(std::nearbyint(quotient), -128.0f, 127.0f);
    out[i] = scale * rounded;
  }
  return scale > 0 ? scale : 0.0f;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](float x, float y) {
           return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y);
         });
}

void ExpectRounded(RoundInputsArgs args, const std::vector<float>& values) {
  const int64_t group = args.group > 0 ? std::min(args.group, args.k) : args.k;
  std::vector<float> want(values.size()), want_scale;
  std::vector<uint8_t> want_codes(values.size());
  for (int64_t row = 0; row < args.m; ++row) {
    for (int64_t begin = 0; begin < args.k; begin += group) {
      const int64_t at = row * args.k + begin;
      want_scale.push_back(RoundGroup(args, values.data() + at, std::min(group, args.k - begin),
                                      want.data() + at, want_codes.data() + at));
    }
  }
  const DeviceBuffer<float> x(values);
  DeviceBuffer<float> out(args.m * args.k, -1.0f), scale(args.m, -1.0f);
  DeviceBuffer<uint8_t> codes(args.m * args.k, 0x55);
  args.x = x.data();
  args.out = out.data();
  ASSERT_EQ(LaunchRoundInputs(args, nullptr), nullptr);
  EXPECT_TRUE(SameBits(out.ToVector(), want));
  args.out = nullptr;
  args.codes = codes.data();
  args.row_scale = scale.data();
  if (!args.fp8 || group < args.k) {
    EXPECT_STREQ(LaunchRoundInputs(args, nullptr),
                 "codes of rounded inputs are of FP8 with one scale a row");
    return;
  }
  ASSERT_EQ(LaunchRoundInputs(args, nullptr), nullptr);
  EXPECT_EQ(codes.ToVector(), want_codes);
  EXPECT_EQ(scale.ToVector(), want_scale);
}

TEST(RoundInputsCudaTest, EqualsPlainLoops) {
  for (const int64_t k : {1, 31, 300, 1030}) {
    auto values = RandomFloats(3 * k, 8, 5.0f);
    std::fill(values.begin() + k, values.begin() + 2 * k, 0.0f);  // A token of zeros
    if (k > 1) values[1] = -200.0f;
    values.back() = 250.0f;  // The largest of its row in the last tile
    for (const bool fp8 : {false, true}) {
      for (const int64_t group : {int64_t{0}, int64_t{16}, int64_t{300}, int64_t{1} << 50}) {
        for (const float scale : {0.0f, 0.013f}) {
          SCOPED_TRACE(testing::Message() << k << " " << fp8 << " " << group << " " << scale);
          RoundInputsArgs args;
          args.m = 3;
          args.k = k;
          args.group = group;
          args.scale = scale;
          args.fp8 = fp8;
          ExpectRounded(args, values);
        }
      }
    }
  }
}

// Of halves the even one.
TEST(RoundInputsCudaTest, IntegersRoundHalvesToEven) {
  RoundInputsArgs args;
  args.m = 1;
  args.k = 4;
  args.scale = 0.5f;
  args.fp8 = false;
  ExpectRounded(args, {0.75f, 1.25f, -0.25f, -1.75f});
}

// What is no number stays none; the largest integer code is 127.
TEST(RoundInputsCudaTest, NanStaysNan) {
  const DeviceBuffer<float> x(std::vector<float>{std::nanf(""), 2.0f, -2.0f});
  for (const bool fp8 : {false, true}) {
    DeviceBuffer<float> out(3, 0.0f);
    RoundInputsArgs args;
    args.x = x.data();
    args.out = out.data();
    args.m = 1;
    args.k = 3;
    args.fp8 = fp8;
    ASSERT_EQ(LaunchRoundInputs(args, nullptr), nullptr);
    EXPECT_TRUE(std::isnan(out.data()[0]));
    EXPECT_EQ(out.data()[1], fp8 ? 2.0f : 127.0f * (2.0f / 127.5f));
  }
}

TEST(Fp8GemmTest, RefMultipliesCodesInTheOrderOfK) {
  const int m = 2, n = 16, k = 32;
  std::vector<uint8_t> x, w;
  for (int i = 0; i < m * k; ++i) x.push_back(static_cast<uint8_t>(i * 37 % 127));
  for (int i = 0; i < n * k; ++i) w.push_back(static_cast<uint8_t>(128 * (i % 3 == 0) + i % 127));
  std::vector<float> y(static_cast<size_t>(m * n));
  GemmRef({GemmType::kE4m3, x.data(), w.data(), y.data(), m, n, k});
  for (int i = 0; i < m * n; ++i) {
    float sum = 0;
    for (int j = 0; j < k; ++j)
      sum += E4M3ToFp32Ref(x[static_cast<size_t>(i / n * k + j)]) *
             E4M3ToFp32Ref(w[static_cast<size_t>(i % n * k + j)]);
    EXPECT_EQ(y[static_cast<size_t>(i)], sum);
  }
}

TEST(Fp8GemmTest, AsksForAdaAndMultiplesOf16) {
  EXPECT_FALSE(HasFp8TensorCores(8, 0));
  EXPECT_FALSE(HasFp8TensorCores(8, 6));
  EXPECT_TRUE(HasFp8TensorCores(8, 9));
  EXPECT_TRUE(HasFp8TensorCores(9, 0));
  EXPECT_TRUE(HasFp8TensorCores(12, 0));
  EXPECT_TRUE(Fp8GemmFits(32, 16));
  EXPECT_FALSE(Fp8GemmFits(24, 16));
  EXPECT_FALSE(Fp8GemmFits(32, 24));
}

}  // namespace
}  // namespace tern::kernels
