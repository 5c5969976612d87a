// Products of many tokens on a device, here the emulator, with activations beyond the range of
// fp16: a token is brought into it by a power of two, and other tokens keep their bits.
#include "engine/device_linear.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "base/random.h"
#include "engine/int4_matrix.h"
#include "engine/weight_table.h"
#include "formats/half.h"
#include "kernels/fp8/fp8.h"

#if defined(TERN_HAVE_SIMT)

namespace tern::testing {
namespace {

using engine::LinearMatrix;
using engine::ScaledCode;
using engine::ScaledMatrix;

constexpr int64_t kN = 24, kK = 160;

std::vector<float> DeviceProduct(const LinearMatrix& matrix, const std::vector<float>& x) {
  const std::unique_ptr<kernels::Device> device = kernels::Device::Open("simt");
  const kernels::DeviceMemory memory = device->Allocate(1 << 20), room = device->Allocate(1 << 20);
  engine::DeviceUploader uploader(*device, memory.data());
  const engine::DeviceMatrix placed =
      uploader.Put(matrix, engine::ActivationRule::kNone, engine::CodeActivations::kInt16);
  const int64_t m = std::ssize(x) / kK;
  engine::DeviceArena arena(room.data());
  engine::DeviceInput input(*device);
  input.Place({m, kK, kN * kK}, &arena);
  auto* x_device = arena.Take<float>(m * kK);
  auto* y_device = arena.Take<float>(m * kN);
  device->CopyIn(x_device, x.data(), m * kK * 4);
  input.Set(x_device, m, kK);
  input.Multiply(placed, y_device);
  std::vector<float> y(static_cast<size_t>(m * kN));
  device->CopyOut(y.data(), y_device, m * kN * 4);
  device->Synchronize();
  return y;
}

// One huge element in token 1, of `m`.
void ExpectInRange(const LinearMatrix& matrix, int64_t m) {
  RandomStream random(9, "inputs");
  std::vector<float> x(static_cast<size_t>(m * kK));
  for (float& v : x) v = random.NextNormal();
  const std::vector<float> before = DeviceProduct(matrix, x);
  x[kK + 7] = -3e6f;
  const std::vector<float> got = DeviceProduct(matrix, x), w = ValuesOf(matrix);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < kN; ++j) {
      const auto at = static_cast<size_t>(i * kN + j);
      if (i != 1) {
        EXPECT_EQ(got[at], before[at]);
        continue;
      }
      // fp16 operands, each off by 2^-11 (4-bit weights: two roundings), elements below 2^-14 of
      // the scaled row by half of 2^-24, where the scale is at most 2^8, and fp32 sums.
      double exact = 0, size = 0;
      for (int64_t l = 0; l < kK; ++l) {
        const double weight = w[static_cast<size_t>(j * kK + l)];
        exact += static_cast<double>(x[static_cast<size_t>(i * kK + l)]) * weight;
        size += (std::fabs(x[static_cast<size_t>(i * kK + l)]) + 0x1p-6) * std::fabs(weight);
      }
      EXPECT_NEAR(got[at], exact, (3 * 0x1p-11 + 0x1p-15) * size);
    }
  }
}

class DeviceLinearTest : public ::testing::TestWithParam<ScaledCode> {};

TEST_P(DeviceLinearTest, ActivationsBeyondFp16) {
  RandomStream random(8, "weights");
  ScaledMatrix matrix;
  matrix.code = GetParam();
  matrix.n = kN;
  matrix.k = matrix.block_k = kK;
  std::vector<uint8_t> codes(static_cast<size_t>(kN * matrix.CodeRowBytes()));
  for (uint8_t& code : codes) code = static_cast<uint8_t>(random.NextU64() % 256 & 0xF7u);
  std::vector<uint16_t> scales;
  for (int64_t i = 0; i < kN; ++i)
    scales.push_back(formats::Fp32ToFp16(0.01f + 0.02f * random.NextUniform()));
  matrix.codes = std::as_bytes(std::span(codes));
  matrix.scales = std::as_bytes(std::span(scales));
  matrix.scale_type = engine::ScaleType::kF16;
  if (GetParam() == ScaledCode::kInt4) {
    matrix.block_k = kK;
    const auto int4 = engine::RepackInt4(matrix);
    ASSERT_TRUE(int4.has_value());
    for (const int64_t m : {3, 11}) ExpectInRange(LinearMatrix(*int4), m);
  } else {
    ExpectInRange(LinearMatrix(matrix), 11);
  }
}

INSTANTIATE_TEST_SUITE_P(Codes, DeviceLinearTest,
                         ::testing::Values(ScaledCode::kInt4, ScaledCode::kInt8,
                                           ScaledCode::kFp8E4m3),
                         [](const auto& info) {
                           return info.param == ScaledCode::kInt4   ? "Int4"
                                  : info.param == ScaledCode::kInt8 ? "Int8"
                                                                    : "Fp8";
                         });

}  // namespace
}  // namespace tern::testing

#endif
