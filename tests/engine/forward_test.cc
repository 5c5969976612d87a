// The engine's logits against fp64 loops (reference.h), for every architecture, ternary and dense,
// with int8 and with float activations.
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "tests/engine/reference.h"
#include "tests/engine/tiny_files.h"
#include "tests/engine/tiny_weights.h"
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

constexpr SubNorms kPlacements[] = {SubNorms::kNone, SubNorms::kOutputs, SubNorms::kEveryLinear,
                                    SubNorms::kEveryLinearOnly};

// The four placements of norms (arch/model_config.h), ternary and dense.
TEST(SubNormsForwardTest, EveryPlacementIsTheReference) {
  for (const SubNorms sub_norms : kPlacements) {
    for (const LinearKind linear : {LinearKind::kBitLinear, LinearKind::kDense}) {
      SCOPED_TRACE(StrCat(ToString(sub_norms), " ", ToString(linear)));
      const bool ternary = linear == LinearKind::kBitLinear;
      ModelConfig config = TinyConfig(ArchName::kLlama, linear);
      config.sub_norms = sub_norms;
      config.num_layers = 1;  // Of more roundings, few seeds have none near a half
      const auto rule = ternary ? ActivationRule::kInt8Token : ActivationRule::kNone;
      bool ran = false;
      for (uint64_t seed = 1; !ran && seed <= 200; ++seed) {
        const TinyModel model = MakeTinyModel(config, seed);
        const std::vector<int32_t> tokens = RandomTokens(2, config.vocab_size, seed);
        const ReferenceRun want = Reference(model, rule).Run(tokens);
        if (ternary && want.tie_distance < kSafeTieDistance) continue;
        const engine::Engine engine(WeightsOf(model), 1);
        ExpectNear(engine::Session(engine).Append(tokens, engine::LogitsOf::kAll), want);
        ran = true;
      }
      EXPECT_TRUE(ran) << "no seed without a rounding near a half";
    }
  }
}

// A folder of transformers' BitLinear(use_rms_norm=True), and what is not right about one.
TEST(SubNormsForwardTest, FoldersWithNormsInTheirLayers) {
  const TempFolder folder;
  ModelConfig config = TinyConfig(ArchName::kLlama);
  config.sub_norms = SubNorms::kEveryLinear;
  const TinyModel model = MakeTinyModel(config, 3);
  HfOptions options;
  options.linear_class = "autobitlinear";  // Whose scales are not inverted
  WriteHfFolder(model, folder / "hf", options);
  const std::vector<int32_t> tokens = RandomTokens(5, config.vocab_size, 4);
  const auto logits = [&](engine::ModelWeights weights) {
    const engine::Engine engine(std::move(weights), 1);
    return engine::Session(engine).Append(tokens, engine::LogitsOf::kAll);
  };
  engine::ModelWeights read = engine::LoadModel(folder / "hf");
  EXPECT_EQ(read.config.sub_norms, SubNorms::kEveryLinear);
  EXPECT_EQ(logits(std::move(read)), logits(WeightsOf(model)));

  const auto refused = [&](const std::string& what) {
    const std::string path = folder / "damaged";
    WriteHfFolder(model, path, options);
    try {
      engine::LoadModel(path);
      ADD_FAILURE() << "accepted: " << what;
    } catch (const FormatError& error) {
      EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
    }
  };
  options.change_config = [](nlohmann::json& json) {
    json["quantization_config"]["rms_norm_eps"] = 1e-8;
  };
  refused("rms_norm_eps of quantization_config");
  options.change_config = [](nlohmann::json& json) {
    json["quantization_config"]["use_rms_norm"] = false;
  };
  refused("rms_norm.weight has no place");
  options.change_config = [](nlohmann::json& json) { json["model_type"] = "bitnet"; };
  refused("use_rms_norm of quantization_config is true and model_type bitnet");
  options.change_config = {};
  options.leave_out = {"model.layers.1.mlp.up_proj.rms_norm.weight"};
  refused("model.layers.1.mlp.up_proj.rms_norm.weight");
}

INSTANTIATE_TEST_SUITE_P(Archs, ForwardTest, ::testing::ValuesIn(kArchs), NameOf);

}  // namespace
}  // namespace tern::testing
