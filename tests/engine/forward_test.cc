// The engine's logits against fp64 loops (reference.h), for every architecture, ternary and dense,
// with int8 and with float activations.
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "tests/engine/reference.h"
#include "tests/engine/tiny_files.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

using engine::ActivationRule;

constexpr ArchName kArchs[] = {ArchName::kLlama, ArchName::kQwen3, ArchName::kBitnet,
                               ArchName::kBitnet158};

std::string NameOf(const ::testing::TestParamInfo<ArchName>& info) {
  switch (info.param) {
    case ArchName::kLlama:
      return "llama";
    case ArchName::kQwen2:
      return "qwen2";
    case ArchName::kQwen3:
      return "qwen3";
    case ArchName::kBitnet:
      return "bitnet";
    case ArchName::kBitnet158:
      return "bitnet158";
    case ArchName::kNone:
      break;
  }
  return "none";
}

// Roundings between an embedding and a logit. A sum of n terms in 16 lanes has n/16 + 16 roundings
// in a row; a layer has 4 matrices of 256 inputs (32 each) and 4 norms (32 each) one after the
// other, an attention of up to 128 products and 20 positions, and some 40 single operations; the
// head has 32 more and its norm too. Two layers: 2 * (8 * 32 + 148 + 40) + 64 = 952. Each is off by
// 2^-24 at most. As they point in all directions they add like the steps of a random walk; 4 sigma
// of it: 4 * sqrt(952) * 2^-24 = 7.4e-6, relative to the terms of the sum.
constexpr double kRelative = 7.4e-6;
// The same error of an activation in int8 steps: it is 127 steps at most.
constexpr double kSafeTieDistance = 127 * kRelative / 4;  // 1 sigma: 4 sigma leaves no seed

void ExpectNear(const std::vector<float>& found, const ReferenceRun& want) {
  ASSERT_EQ(found.size(), want.logits.size());
  double worst = 0;
  for (size_t i = 0; i < found.size(); ++i)
    worst = std::max(worst, std::abs(double{found[i]} - want.logits[i]) / want.magnitude[i]);
  EXPECT_LT(worst, kRelative);
}

class ForwardTest : public ::testing::TestWithParam<ArchName> {
 protected:
  std::vector<float> Logits(const TinyModel& model, const std::vector<int32_t>& tokens,
                            const GgufOptions& options = {}) {
    const std::string path = folder_ / "model.gguf";
    WriteGguf(model, GetParam(), path, options);
    const engine::Engine engine(engine::LoadModel(path), 1);
    return engine::Session(engine).Append(tokens, engine::LogitsOf::kAll);
  }

  TempFolder folder_;
};

// Goal: int8 activations, integer products and their scales, as the trainer defines them. The seed
// is the first one whose reference has no rounding near a half, so that both sides must round
// alike.
TEST_P(ForwardTest, TernaryWithInt8ActivationsIsTheReference) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    const TinyModel model = MakeTinyModel(TinyConfig(GetParam()), seed);
    const std::vector<int32_t> tokens = RandomTokens(3, model.config.vocab_size, seed);
    const ReferenceRun want = Reference(model, ActivationRule::kInt8Token).Run(tokens);
    if (want.tie_distance < kSafeTieDistance) continue;
    ExpectNear(Logits(model, tokens), want);
    return;
  }
  FAIL() << "no seed without a rounding near a half";
}

TEST_P(ForwardTest, TernaryWithFloatActivationsIsTheReference) {
  const TinyModel model = MakeTinyModel(TinyConfig(GetParam()), /*seed=*/11);
  const std::vector<int32_t> tokens = RandomTokens(20, model.config.vocab_size, /*seed=*/12);
  GgufOptions options;
  options.activation = "none";
  ExpectNear(Logits(model, tokens, options), Reference(model, ActivationRule::kNone).Run(tokens));
}

TEST_P(ForwardTest, DenseIsTheReference) {
  const TinyModel model = MakeTinyModel(TinyConfig(GetParam(), LinearKind::kDense), /*seed=*/13);
  const std::vector<int32_t> tokens = RandomTokens(20, model.config.vocab_size, /*seed=*/14);
  GgufOptions options;
  options.linear = formats::GgmlType::kF32;
  options.activation = std::nullopt;
  ExpectNear(Logits(model, tokens, options), Reference(model, ActivationRule::kNone).Run(tokens));
}

// Goal: a head of its own is used, and the embedding when there is none.
TEST_P(ForwardTest, BothKindsOfHead) {
  ModelConfig config = TinyConfig(GetParam(), LinearKind::kDense);
  config.tied_head = !config.tied_head;
  const TinyModel model = MakeTinyModel(config, /*seed=*/15);
  const std::vector<int32_t> tokens = RandomTokens(5, config.vocab_size, /*seed=*/16);
  GgufOptions options;
  options.linear = formats::GgmlType::kF32;
  ExpectNear(Logits(model, tokens, options), Reference(model, ActivationRule::kNone).Run(tokens));
}

// Goal: grouped queries, from one key head for all to one for each.
TEST_P(ForwardTest, AnyNumberOfKeyHeads) {
  for (const int64_t heads : {1, 2, 4}) {
    ModelConfig config = TinyConfig(GetParam(), LinearKind::kDense);
    config.num_kv_heads = heads;
    const TinyModel model = MakeTinyModel(config, /*seed=*/17);
    const std::vector<int32_t> tokens = RandomTokens(7, config.vocab_size, /*seed=*/18);
    GgufOptions options;
    options.linear = formats::GgmlType::kF32;
    SCOPED_TRACE(heads);
    ExpectNear(Logits(model, tokens, options), Reference(model, ActivationRule::kNone).Run(tokens));
  }
}

INSTANTIATE_TEST_SUITE_P(Archs, ForwardTest, ::testing::ValuesIn(kArchs), NameOf);

}  // namespace
}  // namespace tern::testing
