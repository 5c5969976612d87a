// A folder's activations (--activations folder) on a device, here the emulator: up to 8 tokens at
// once have the CPU's bits; more go through the FP8 product where weights and sizes allow it, and
// through 16 bits elsewhere; what multiplies is said; what a device does not do is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "base/error.h"
#include "engine/device_linear.h"
#include "engine/device_session.h"
#include "engine/linear.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "engine/weight_table.h"
#include "kernels/fp8/fp8.h"
#include "tests/engine/scaled_folder.h"
#include "tests/testing/temp_folder.h"

#if defined(TERN_HAVE_SIMT)

namespace tern::testing {
namespace {

using engine::CodeActivations;
using engine::DeviceModel;
using engine::DeviceSession;
using engine::InputRounding;
using engine::ModelWeights;
using engine::ScaledMatrix;
using kernels::KvType;

// An FP8 matrix [n, k] with a scale a row, or one for all.
struct Fp8Weights {
  Fp8Weights(int64_t n, int64_t k, bool tensor, float input_scale) {
    scales.resize(static_cast<size_t>(tensor ? 1 : n));
    codes.resize(static_cast<size_t>(n * k));
    matrix.code = engine::ScaledCode::kFp8E4m3;
    matrix.codes = std::as_bytes(std::span(codes));
    matrix.scales = std::as_bytes(std::span(scales));
    matrix.input = {InputRounding::Code::kFp8E4m3, 0, input_scale};
    matrix.n = n;
    matrix.k = matrix.block_k = k;
    matrix.block_n = tensor ? n : 1;
  }
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  ScaledMatrix matrix;
};

std::vector<float> CpuProduct(const ScaledMatrix& matrix, const std::vector<float>& x) {
  const ParallelFor parallel(SerialFor);
  engine::LinearInput input(parallel, CodeActivations::kFolder);
  input.Set(x.data(), std::ssize(x) / matrix.k, matrix.k);
  std::vector<float> y(x.size() / static_cast<size_t>(matrix.k) * static_cast<size_t>(matrix.n));
  Multiply(input, engine::LinearMatrix(matrix), engine::ActivationRule::kNone, y.data(), parallel);
  return y;
}

struct DeviceResult {
  std::vector<float> y;
  bool fp8;
};

DeviceResult DeviceProduct(const ScaledMatrix& matrix, const std::vector<float>& x) {
  const std::unique_ptr<kernels::Device> device = kernels::Device::Open("simt");
  const kernels::DeviceMemory memory = device->Allocate(1 << 20), room = device->Allocate(1 << 20);
  engine::DeviceUploader uploader(*device, memory.data());
  const engine::DeviceMatrix placed = uploader.Put(
      engine::LinearMatrix(matrix), engine::ActivationRule::kNone, CodeActivations::kFolder);
  const int64_t m = std::ssize(x) / matrix.k;
  engine::DeviceArena arena(room.data());
  engine::DeviceInput input(*device);
  input.Place({m, matrix.k, matrix.n * matrix.k, true}, &arena);
  auto* x_device = arena.Take<float>(m * matrix.k);
  auto* y_device = arena.Take<float>(m * matrix.n);
  device->CopyIn(x_device, x.data(), m * matrix.k * 4);
  input.Set(x_device, m, matrix.k);
  input.Multiply(placed, y_device);
  std::vector<float> y(static_cast<size_t>(m * matrix.n));
  device->CopyOut(y.data(), y_device, m * matrix.n * 4);
  device->Synchronize();
  return {y, std::get<engine::DeviceTable>(placed).fp8_product};
}

// Codes of 1/8 to 15 and scales that are powers of two: every product is a multiple of 2^-6 and
// sums of 64 stay below 2^14, so fp32 holds them all exactly, in any order, and the scales change
// exponents alone. Equal bits, by whichever product.
TEST(DeviceFolderActivationsTest, ExactWhereNothingIsRounded) {
  const int64_t m = 11, n = 48, k = 64;
  RandomStream random(5, "exact");
  for (const bool tensor : {false, true}) {
    for (const float input_scale : {0.0f, 0x1p-3f}) {
      Fp8Weights w(n, k, tensor, input_scale);
      const auto value = [&] { return static_cast<float>(random.NextU64() % 16) - 8.0f; };
      for (uint8_t& code : w.codes) code = kernels::Fp32ToE4M3Ref(value() / 8);
      for (float& scale : w.scales)
        scale = std::ldexp(1.0f, static_cast<int>(random.NextU64() % 9) - 4);
      std::vector<float> x(static_cast<size_t>(m * k));
      for (float& v : x) v = value() / 8;
      // The largest of each row: amax / 448 = 2^-8, so codes are x * 2^8, which E4M3 holds.
      for (int64_t row = 0; row < m; ++row) x[static_cast<size_t>(row * k)] = 1.75f;
      const DeviceResult got = DeviceProduct(w.matrix, x);
      EXPECT_TRUE(got.fp8);
      EXPECT_EQ(got.y, CpuProduct(w.matrix, x)) << tensor << " " << input_scale;
    }
  }
}

// Random numbers. Against the exact sum of codes times both scales, with a = sum |x w| of a result
// and u = 2^-24: on the device k sums in a row and two scales, (k + 2) u a; on the CPU the products
// of scale and code, one of x and one of w, are rounded, and at most k fused sums: (k + 2) u a.
TEST(DeviceFolderActivationsTest, WithinTheRoundingOfSums) {
  const int64_t m = 11, n = 48, k = 96;
  RandomStream random(6, "random");
  for (const bool tensor : {false, true}) {
    for (const float input_scale : {0.0f, 0.02f}) {
      Fp8Weights w(n, k, tensor, input_scale);
      for (uint8_t& code : w.codes) code = kernels::Fp32ToE4M3Ref(100.0f * random.NextNormal());
      for (float& scale : w.scales) scale = 0.001f + 0.02f * random.NextUniform();
      std::vector<float> x(static_cast<size_t>(m * k)), size(x.size());
      for (float& v : x) v = 3.0f * random.NextNormal();
      const DeviceResult got = DeviceProduct(w.matrix, x);
      EXPECT_TRUE(got.fp8);
      const std::vector<float> want = CpuProduct(w.matrix, x);
      RoundInputs(w.matrix.input, x.data(), m, k, size.data(), SerialFor);
      std::vector<float> row(static_cast<size_t>(k));
      for (int64_t j = 0; j < n; ++j) {
        w.matrix.Decode(j, row.data());
        for (int64_t i = 0; i < m; ++i) {
          double a = 0;
          for (int64_t l = 0; l < k; ++l)
            a += std::fabs(static_cast<double>(size[static_cast<size_t>(i * k + l)]) *
                           row[static_cast<size_t>(l)]);
          const auto at = static_cast<size_t>(i * n + j);
          EXPECT_NEAR(got.y[at], want[at], 2.0 * (static_cast<double>(k) + 2) * 0x1p-24 * a);
        }
      }
    }
  }
}

// Sizes that cuBLASLt does not take: the inputs scaled back and the weights in 16 bits, each off by
// 2^-11 of itself at most (subnormals of fp16 are far below), and sums as above. A rounded input is
// at most a sixteenth larger than its number, or half of the 2^-9 of its scale.
TEST(DeviceFolderActivationsTest, OtherSizesGoThroughSixteenBits) {
  const int64_t m = 9, n = 20, k = 40;
  RandomStream random(7, "odd");
  Fp8Weights w(n, k, false, 0.0f);
  for (uint8_t& code : w.codes) code = kernels::Fp32ToE4M3Ref(100.0f * random.NextNormal());
  for (float& scale : w.scales) scale = 0.01f + 0.02f * random.NextUniform();
  std::vector<float> x(static_cast<size_t>(m * k)), row(static_cast<size_t>(k));
  for (float& v : x) v = 3.0f * random.NextNormal();
  const DeviceResult got = DeviceProduct(w.matrix, x);
  EXPECT_FALSE(got.fp8);
  const std::vector<float> want = CpuProduct(w.matrix, x);
  for (int64_t j = 0; j < n; ++j) {
    w.matrix.Decode(j, row.data());
    for (int64_t i = 0; i < m; ++i) {
      double a = 0;  // At least sum |x w|
      for (int64_t l = 0; l < k; ++l)
        a += (1.0625 * std::fabs(x[static_cast<size_t>(i * k + l)]) + 0x1p-10) *
             std::fabs(row[static_cast<size_t>(l)]);
      const auto at = static_cast<size_t>(i * n + j);
      EXPECT_NEAR(got.y[at], want[at], (0x1p-10 + 0x1p-16) * a);
    }
  }
}

// A model of two sizes: rows that FP8 products take, and rows that they do not.
ModelConfig FolderConfig(bool fits) {
  ModelConfig c = ScaledConfig();
  if (!fits) return c;
  c.hidden_size = 64;
  c.intermediate_size = 96;
  c.head_dim = 16;
  return c;
}

struct FolderKind {
  std::string name;
  ScaledKind weights;
  std::string input;  // token, group16, tensor (a file's scale)
  bool fits;
  std::string report;
  float many;  // How far logits of more than 8 tokens at once may be off, of the largest
};

class DeviceFolderActivationsModelTest : public ::testing::TestWithParam<FolderKind> {};

void AskForActivations(const FolderKind& kind, RawFolder* folder) {
  nlohmann::json& quantization = folder->config["quantization_config"];
  if (kind.weights.method == "fp8") return;  // Asks by itself
  nlohmann::json input = {{"num_bits", 8},
                          {"type", kind.weights.code == "fp8" ? "float" : "int"},
                          {"symmetric", true},
                          {"strategy", kind.input == "group16" ? "group" : kind.input},
                          {"dynamic", kind.input != "tensor"}};
  if (kind.input == "group16") input["group_size"] = 16;
  quantization["config_groups"]["group_0"]["input_activations"] = input;
  if (kind.input != "tensor") return;
  std::vector<std::string> layers;
  for (const auto& [name, tensor] : folder->tensors)
    if (name.ends_with("weight_scale")) layers.push_back(name.substr(0, name.size() - 12));
  for (const std::string& layer : layers)
    folder->tensors[layer + "input_scale"] = MakeRaw<float>("F32", {1}, {0.01f});
}

TEST_P(DeviceFolderActivationsModelTest, LogitsAreThoseOfTheCpu) {
  const FolderKind& kind = GetParam();
  TempFolder temp;
  ScaledFolder scaled(kind.weights, FolderConfig(kind.fits));
  AskForActivations(kind, &scaled.folder);
  scaled.folder.Write(temp / "hf");
  ModelWeights weights = engine::LoadModel(temp / "hf");
  SetActivations(CodeActivations::kFolder, &weights);
  ModelWeights of_cpu = engine::LoadModel(temp / "hf");
  SetActivations(CodeActivations::kFolder, &of_cpu);
  const engine::Engine engine(std::move(of_cpu), 1);
  const std::vector<int32_t> tokens = RandomTokens(11, weights.config.vocab_size, 83);
  const std::vector<float> want =
      engine::Session(engine, 0, KvType::kF16).Append(tokens, engine::LogitsOf::kAll);
  const std::unique_ptr<kernels::Device> device = kernels::Device::Open("simt");
  const DeviceModel model(weights, *device);
  EXPECT_NE(model.Describe().find(kind.report), std::string::npos) << model.Describe();
  DeviceSession pieces(model, {64});
  std::vector<float> got = pieces.AppendAll(std::span(tokens).first(8));
  const std::vector<float> rest = pieces.AppendAll(std::span(tokens).subspan(8));
  got.insert(got.end(), rest.begin(), rest.end());
  EXPECT_EQ(got, want);
  // The rounding is there: float activations give others.
  weights.code_activations = CodeActivations::kInt16;
  EXPECT_NE(
      DeviceSession(DeviceModel(weights, *device), {64}).AppendAll(std::span(tokens).first(8)),
      std::vector<float>(want.begin(), want.begin() + 8 * weights.config.vocab_size));
  const std::vector<float> many = DeviceSession(model, {64}).AppendAll(tokens);
  float largest = 0, worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    largest = std::max(largest, std::fabs(want[i]));
    worst = std::max(worst, std::fabs(many[i] - want[i]));
  }
  EXPECT_LE(worst, kind.many * largest) << worst / largest;
  EXPECT_GT(worst, 0);  // Another product
}

// FP8 by FP8: fp32 sums in another order. Where a key or value lies between two fp16 numbers it may
// take the other one: 2^-11; an input that lies as near to the middle of two codes is not among
// these. 16 bits: 0.005 for operands off by 2^-11 (device_models_test.cc), and rounding to FP8
// makes of an error of 2^-11 one of 2^-4 in one of 2^7 inputs: 2^3.5 times as much in the root mean
// square. A wrong scale moves logits by more than a tenth.
constexpr float kFp8 = 0x1p-11f, kHalf = 0.056f;
const ScaledKind kFp8Channel{"", "fp8", "channel", 1, 0, false, "BF16"};
const ScaledKind kFp8Tensor{"", "fp8", "tensor", 0, 0, false, "F32"};
const ScaledKind kInt8Channel{"", "int8", "channel", 1, 0, false, "F32"};
const ScaledKind kFp8Block{"", "fp8", "block", 32, 32, false, "F32", "fp8"};
constexpr char kByFp8[] =
    "7 of FP8 with the folder's activations, above 8 tokens at once by a reference loop (FP8 by "
    "FP8)";
constexpr char kByHalf[] =
    "7 with the folder's activations, above 8 tokens at once by a reference loop (in 16 bits)";

INSTANTIATE_TEST_SUITE_P(
    Kinds, DeviceFolderActivationsModelTest,
    ::testing::Values(FolderKind{"ChannelToken", kFp8Channel, "token", true, kByFp8, kFp8},
                      FolderKind{"TensorToken", kFp8Tensor, "token", true, kByFp8, kFp8},
                      FolderKind{"TensorTensor", kFp8Tensor, "tensor", true, kByFp8, kFp8},
                      FolderKind{"ChannelTokenOddSizes", kFp8Channel, "token", false, kByHalf,
                                 kHalf},
                      FolderKind{"ChannelGroups", kFp8Channel, "group16", true, kByHalf, kHalf},
                      FolderKind{"Blocks", kFp8Block, "group", true, kByHalf, kHalf},
                      FolderKind{"Int8Token", kInt8Channel, "token", true, kByHalf, kHalf}),
    [](const auto& info) { return info.param.name; });

// Not done and not left out in silence.
TEST(DeviceFolderActivationsTest, Int8ActivationsAreRefused) {
  TempFolder temp;
  ScaledFolder(kFp8Channel).folder.Write(temp / "hf");
  ModelWeights weights = engine::LoadModel(temp / "hf");
  SetActivations(CodeActivations::kInt8, &weights);
  const std::unique_ptr<kernels::Device> device = kernels::Device::Open("simt");
  EXPECT_THROW(DeviceModel(weights, *device), UsageError);
}

}  // namespace
}  // namespace tern::testing

#endif
