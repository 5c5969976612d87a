// Models of every kind of weights on a device, here the emulator: up to 8 tokens at once the logits
// are those of the CPU's fp32 products bit for bit (4-bit layers: within the rounding of 16-bit
// activations), more within the rounding of the dense product's operands; replayed steps are those
// that are queued kernel by kernel.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "base/error.h"
#include "engine/device_session.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "engine/weight_table.h"
#include "tests/engine/scaled_folder.h"
#include "tests/engine/tiny_blocks.h"
#include "tests/testing/temp_folder.h"

#if defined(TERN_HAVE_SIMT)

namespace tern::testing {
namespace {

using engine::DeviceModel;
using engine::DeviceSession;
using engine::ModelWeights;
using formats::GgmlType;
using kernels::KvType;

float Largest(const std::vector<float>& values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  return largest;
}

void ExpectNear(const std::vector<float>& got, const std::vector<float>& want, float bound) {
  ASSERT_EQ(got.size(), want.size());
  float worst = 0;
  for (size_t i = 0; i < want.size(); ++i) worst = std::max(worst, std::fabs(got[i] - want[i]));
  EXPECT_LE(worst, bound * Largest(want));
}

// What the CPU makes of the model with fp32 activations and an fp16 cache.
std::vector<float> CpuLogits(const std::string& path, const std::vector<int32_t>& tokens) {
  ModelWeights weights = engine::LoadModel(path);
  engine::SetActivations(engine::CodeActivations::kFloat, &weights);
  const engine::Engine engine(std::move(weights), 1);
  return engine::Session(engine, 0, KvType::kF16).Append(tokens, engine::LogitsOf::kAll);
}

// `few`, `many`: how far logits of up to 8 and of more tokens at once may be off, of the largest;
// few 0: not at all.
void ExpectLogitsOfCpu(const std::string& path, float few, float many) {
  const std::unique_ptr<kernels::Device> device = kernels::Device::Open("simt");
  const ModelWeights weights = engine::LoadModel(path);
  const DeviceModel model(weights, *device);
  const std::vector<int32_t> tokens = RandomTokens(11, weights.config.vocab_size, 83);
  const std::vector<float> want = CpuLogits(path, tokens);
  ASSERT_GT(Largest(want), 0);
  DeviceSession pieces(model, {64});
  std::vector<float> got = pieces.AppendAll(std::span(tokens).first(8));
  const std::vector<float> rest = pieces.AppendAll(std::span(tokens).subspan(8));
  got.insert(got.end(), rest.begin(), rest.end());
  if (few == 0) {
    EXPECT_EQ(got, want);
  } else {
    ExpectNear(got, want, few);
  }
  ExpectNear(DeviceSession(model, {64}).AppendAll(tokens), want, many);
}

// fp16 products: operands off by 2^-11 each, bf16 (where the matrix is): 2^-9. Nine products follow
// each other, each of which may double an error: 2^9 times at the very most; typically errors of
// different signs leave much less. A wrong scale or row moves logits by more than a tenth.
constexpr float kFp16 = 0.005f, kBf16 = 0.02f;

class DeviceBlocksTest : public ::testing::TestWithParam<std::tuple<GgmlType, ArchName>> {};

TEST_P(DeviceBlocksTest, LogitsAreThoseOfFloatActivations) {
  const auto [type, arch] = GetParam();
  TempFolder folder;
  const std::string path = folder / "blocks.gguf";
  TinyModel model = MakeTinyModel(TinyConfig(arch, LinearKind::kDense), 81);
  const TinyBlocks blocks = MakeBlocks(type, type, &model, 82);
  GgufOptions options;
  options.linear = options.table = GgmlType::kF32;
  options.activation = std::nullopt;
  options.blocks = &blocks;
  WriteGguf(model, arch, path, options);
  ExpectLogitsOfCpu(path, 0, type == GgmlType::kBf16 ? kBf16 : kFp16);
}

INSTANTIATE_TEST_SUITE_P(Types, DeviceBlocksTest,
                         ::testing::Combine(::testing::ValuesIn(Types()),
                                            ::testing::Values(ArchName::kLlama)),
                         [](const auto& info) {
                           return std::string(formats::InfoOf(std::get<0>(info.param)).name);
                         });
// With biases, with norms of q and k.
INSTANTIATE_TEST_SUITE_P(Architectures, DeviceBlocksTest,
                         ::testing::Combine(::testing::Values(GgmlType::kQ4_1),
                                            ::testing::Values(ArchName::kQwen2, ArchName::kQwen3)),
                         [](const auto& info) { return GgufArchName(std::get<1>(info.param)); });

TEST(DeviceModelsTest, PlainFloats) {
  TempFolder folder;
  const std::string path = folder / "model.gguf";
  GgufOptions options;
  options.linear = options.table = GgmlType::kF32;
  options.activation = std::nullopt;
  WriteGguf(MakeTinyModel(TinyConfig(ArchName::kLlama, LinearKind::kDense), 81), ArchName::kLlama,
            path, options);
  // fp32 sums in another order; where a key or value lies between two fp16 numbers it may take the
  // other one: 2^-11.
  ExpectLogitsOfCpu(path, 0, 0x1p-11f);
}

// Windows of attention, in one layer of two: 3 of the 11 tokens.
TEST(DeviceModelsTest, SlidingAttention) {
  TempFolder folder;
  const std::string path = folder / "folder";
  WriteHfFolder(MakeTinyModel(TinyConfig(ArchName::kQwen2, LinearKind::kDense), 81), path,
                SlidingQwen2());
  ASSERT_EQ(engine::OpenModel(path)->config().attention_windows, (std::vector<int64_t>{0, 3}));
  ExpectLogitsOfCpu(path, 0, kBf16);
}

// A foreign ternary file: float activations.
TEST(DeviceModelsTest, TernaryWithFloatActivations) {
  TempFolder folder;
  const std::string path = folder / "model.gguf";
  GgufOptions options;
  options.activation = "none";
  WriteGguf(MakeTinyModel(TinyConfig(ArchName::kLlama), 81), ArchName::kLlama, path, options);
  ExpectLogitsOfCpu(path, 0, kFp16);
}

class DeviceScaledTest : public ::testing::TestWithParam<ScaledKind> {};

TEST_P(DeviceScaledTest, LogitsAreThoseOfFloatActivations) {
  TempFolder parent;
  const ScaledFolder scaled(GetParam());
  const std::string path = parent / "folder";
  scaled.folder.Write(path);
  const bool int4 = GetParam().code == "int4" && GetParam().scales != "F32";
  // FP8 folders: random codes make weights, and so attention, sharper.
  const bool coarse = GetParam().scales == "BF16" || GetParam().code == "fp8";
  const float bound = coarse ? kBf16 : kFp16;
  ExpectLogitsOfCpu(path, int4 ? bound : 0, bound);
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, DeviceScaledTest,
    ::testing::Values(ScaledKind{"Int4Channel16", "int4", "channel", 1, 0, false, "F16"},
                      ScaledKind{"Int4ChannelAsymmetricBf16", "int4", "channel", 1, 0, true,
                                 "BF16"},
                      ScaledKind{"Int4Channel32", "int4", "channel", 1, 0, false, "F32"},
                      ScaledKind{"Int8Channel", "int8", "channel", 1, 0, false, "F32"},
                      ScaledKind{"Int8Tensor", "int8", "tensor", 0, 0, false, "F32"},
                      ScaledKind{"Fp8Channel", "fp8", "channel", 1, 0, false, "BF16"},
                      ScaledKind{"Fp8BlockBeyond", "fp8", "block", int64_t{1} << 32, 32},
                      ScaledKind{"Fp8Tensor", "fp8", "tensor", 0, 0, false, "F32"}),
    [](const auto& info) { return info.param.name; });

// Steps of one token, first queued, then recorded and replayed, over a segment of attention.
TEST(DeviceReplayTest, StepsAreThoseOfTheCpu) {
  TempFolder folder;
  const std::string path = folder / "model.gguf";
  ModelConfig config = TinyConfig(ArchName::kLlama);
  WriteGguf(MakeTinyModel(config, 5), ArchName::kLlama, path);
  const std::unique_ptr<kernels::Device> device = kernels::Device::Open("simt");
  const ModelWeights weights = engine::LoadModel(path);
  const DeviceModel model(weights, *device);
  const std::vector<int32_t> tokens = RandomTokens(262, config.vocab_size, 7);
  const std::vector<float> want = CpuLogits(path, tokens);
  DeviceSession session(model, {300});
  session.Append(std::span(tokens).first(250));
  for (size_t i = 250; i < tokens.size(); ++i) {
    const std::span<const float> got = session.Append(std::span(tokens).subspan(i, 1));
    const auto row = want.begin() + static_cast<int64_t>(i) * config.vocab_size;
    ASSERT_TRUE(std::equal(got.begin(), got.end(), row)) << i;
  }
  EXPECT_EQ(session.replayed(), 10);  // All but the first with one segment and with two
}

TEST(DeviceReplayTest, ARecordingDoesNothingUntilItIsReplayed) {
  const std::unique_ptr<kernels::Device> device = kernels::Device::Open("simt");
  const kernels::DeviceMemory memory = device->Allocate(8), host = device->AllocateHost(8);
  auto* in = reinterpret_cast<int32_t*>(host.data());
  in[0] = 1, in[1] = 0;
  const kernels::DeviceRecording recording = device->Record([&] {
    device->CopyInLater(memory.data(), in, 4);
    device->CopyOut(in + 1, memory.data(), 4);
  });
  EXPECT_EQ(in[1], 0);
  for (const int32_t value : {5, 6}) {
    in[0] = value;
    device->Replay(recording);
    device->Synchronize();
    EXPECT_EQ(in[1], value);
  }
  // Waiting cannot be recorded; the device is of use afterwards.
  EXPECT_THROW(device->Record([&] { device->Synchronize(); }), ResourceError);
  device->CopyIn(memory.data(), in, 4);
}

TEST(DeviceModelsTest, SaysWhatMultiplies) {
  TempFolder folder;
  const std::string path = folder / "model.gguf";
  WriteGguf(MakeTinyModel(TinyConfig(ArchName::kLlama), 5), ArchName::kLlama, path);
  const std::unique_ptr<kernels::Device> device = kernels::Device::Open("simt");
  const ModelWeights weights = engine::LoadModel(path);
  const std::string text = DeviceModel(weights, *device).Describe();
  EXPECT_NE(text.find("ternary with int8 activations"), std::string::npos) << text;
  EXPECT_EQ(text.find("reference loop"), std::string::npos) << text;
}

}  // namespace
}  // namespace tern::testing

#endif
