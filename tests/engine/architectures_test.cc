// Decoders that others train: biases of q, k and v (Qwen2), scaled RoPE (linear; Llama 3.1), QK
// norm with heads of a width of their own (Qwen3), windows of attention (Mistral), from GGUF and
// from Hugging Face folders, against the fp64 loops of reference.h; and what is refused, by its
// key.
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "tests/engine/reference.h"
#include "tests/engine/tiny_files.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

using engine::ActivationRule;
using formats::GgmlType;
using formats::GgufWriter;
using nlohmann::json;

// As in forward_test.cc, which derives it for the same sizes; a bias is one more addition.
constexpr double kRelative = 7.4e-6;

class ArchitecturesTest : public ::testing::Test {
 protected:
  static TinyModel Dense(ArchName arch, uint64_t seed) {
    return MakeTinyModel(TinyConfig(arch, LinearKind::kDense), seed);
  }

  std::string Gguf(const TinyModel& model, ArchName arch, GgufOptions options = {}) {
    options.linear = GgmlType::kF32;
    options.activation = std::nullopt;
    const std::string path = folder_ / StrCat(++files_, ".gguf");
    WriteGguf(model, arch, path, options);
    return path;
  }
  std::string Folder(const TinyModel& model, const std::string& type, const json& changes = {}) {
    HfOptions options;
    options.change_config = [&](json& config) {
      config["model_type"] = type;
      config.update(changes.is_null() ? json::object() : changes);
    };
    const std::string path = folder_ / StrCat("hf", ++files_);
    WriteHfFolder(model, path, options);
    return path;
  }

  static void ExpectReference(const TinyModel& model, const std::string& path) {
    const std::vector<int32_t> tokens = RandomTokens(12, model.config.vocab_size, 72);
    const ReferenceRun want = Reference(model, ActivationRule::kNone).Run(tokens);
    const std::vector<float> found = Logits(path);
    ASSERT_EQ(found.size(), want.logits.size());
    double worst = 0;
    for (size_t i = 0; i < found.size(); ++i)
      worst = std::max(worst, std::abs(double{found[i]} - want.logits[i]) / want.magnitude[i]);
    EXPECT_LT(worst, kRelative) << path;
  }

  static void ExpectRefused(const std::string& path, const std::string& part) {
    try {
      engine::LoadModel(path);
      ADD_FAILURE() << "taken, though " << part;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kInput) << error.what();
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }

  static std::vector<float> Logits(const std::string& path) {
    const engine::Engine engine(engine::LoadModel(path), 1);
    return engine::Session(engine).Append(RandomTokens(12, engine.config().vocab_size, 72),
                                          engine::LogitsOf::kAll);
  }

  TempFolder folder_;
  int files_ = 0;
};

TEST_F(ArchitecturesTest, Qwen2HasBiasesAndRowsInOrder) {
  for (const bool tied : {false, true}) {
    TinyModel model = Dense(ArchName::kQwen2, 81);
    model.config.tied_head = tied;
    if (tied) model.floats.erase("lm_head.weight");
    ExpectReference(model, Gguf(model, ArchName::kQwen2));
    ExpectReference(model, Folder(model, "qwen2"));
  }
}

TEST_F(ArchitecturesTest, TernaryQwen2HasBiasesToo) {
  const TinyModel model = MakeTinyModel(TinyConfig(ArchName::kQwen2), 82);
  GgufOptions options;
  options.activation = "none";
  const std::string path = folder_ / "ternary.gguf";
  WriteGguf(model, ArchName::kQwen2, path, options);
  ExpectReference(model, path);
}

TEST_F(ArchitecturesTest, Qwen3FromAFolder) {
  const TinyModel model = Dense(ArchName::kQwen3, 84);
  ASSERT_NE(model.config.HeadDim() * model.config.num_heads, model.config.hidden_size);
  ExpectReference(model, Folder(model, "qwen3"));
}

TEST_F(ArchitecturesTest, MissingAndMisplacedBiasesAreRefused) {
  const TinyModel model = Dense(ArchName::kQwen2, 85);
  GgufOptions options;
  options.leave_out = {"blk.1.attn_k.bias"};
  ExpectRefused(Gguf(model, ArchName::kQwen2, options), "blk.1.attn_k.bias");
  ExpectRefused(Folder(model, "llama"), "_proj.bias");
  options.leave_out = {"blk.0.attn_v.bias"};
  options.add = [](GgufWriter& writer) {
    writer.AddTensor("blk.0.attn_v.bias", GgmlType::kF32, {3},
                     [](int64_t, uint8_t* out) { std::fill_n(out, 12, uint8_t{0}); });
  };
  ExpectRefused(Gguf(model, ArchName::kQwen2, options), "blk.0.attn_v.bias");
  TinyModel wrong = model;
  wrong.floats.at("model.layers.0.self_attn.q_proj.bias")[2] = NAN;
  ExpectRefused(Gguf(wrong, ArchName::kQwen2), "blk.0.attn_q.bias");
  ExpectRefused(Folder(wrong, "qwen2"), "q_proj.bias");
}

TEST_F(ArchitecturesTest, LinearScalingDividesThePositions) {
  TinyModel model = Dense(ArchName::kLlama, 86);
  model.config.rope_scaling = {RopeScalingKind::kLinear, 4.0};
  GgufOptions options;
  options.add = [](GgufWriter& writer) {
    writer.AddString("llama.rope.scaling.type", "linear");
    writer.AddF32("llama.rope.scaling.factor", 4.0f);
  };
  ExpectReference(model, Gguf(model, ArchName::kLlama, options));
  options.add = [](GgufWriter& writer) { writer.AddF32("llama.rope.scale_linear", 4.0f); };
  ExpectReference(model, Gguf(model, ArchName::kLlama, options));
  ExpectReference(
      model, Folder(model, "llama", {{"rope_scaling", {{"type", "linear"}, {"factor", 4.0}}}}));
  model.config.rope_scaling = {};
  options.add = [](GgufWriter& writer) {
    writer.AddString("llama.rope.scaling.type", "none");
    writer.AddF32("llama.rope.scaling.factor", 4.0f);
  };
  ExpectReference(model, Gguf(model, ArchName::kLlama, options));
}

// The formula as transformers writes it: wavelengths against the borders old / low and old / high.
std::vector<double> Llama3ByWavelength(double theta, int64_t e, double factor, double low,
                                       double high, double old) {
  std::vector<double> factors;
  for (int64_t i = 0; i < e / 2; ++i) {
    const double inverse =
        1 / std::pow(theta, 2.0 * static_cast<double>(i) / static_cast<double>(e));
    const double wavelength = 2 * std::numbers::pi / inverse;
    double scaled = inverse;
    if (wavelength > old / low) {
      scaled = inverse / factor;
    } else if (wavelength >= old / high) {
      const double smooth = (old / wavelength - low) / (high - low);
      scaled = (1 - smooth) * inverse / factor + smooth * inverse;
    }
    factors.push_back(inverse / scaled);
  }
  return factors;
}

TEST_F(ArchitecturesTest, Llama3ScalingFromKeysAndFromATensor) {
  TinyModel model = Dense(ArchName::kLlama, 87);
  const int64_t e = model.config.HeadDim();
  // Borders at wavelengths of 16 and 64, so that pairs of all three kinds turn within 12 tokens.
  const json scaling = {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 64}};
  const auto factors = Llama3ByWavelength(double{model.config.rope_theta}, e, 8, 1, 4, 64);
  model.config.rope_scaling = {RopeScalingKind::kFactors};
  model.config.rope_scaling.factors = factors;
  ASSERT_EQ(factors.front(), 1.0);
  ASSERT_EQ(factors.back(), 8.0);
  ASSERT_TRUE(
      std::any_of(factors.begin(), factors.end(), [](double f) { return f > 1.5 && f < 7.5; }));
  ExpectReference(model, Folder(model, "llama", {{"rope_scaling", scaling}}));
  json parameters = scaling;
  parameters["rope_theta"] = model.config.rope_theta;
  ExpectReference(model, Folder(model, "llama", {{"rope_parameters", parameters}}));
  GgufOptions options;
  options.add = [&](GgufWriter& writer) {
    writer.AddTensor("rope_freqs.weight", GgmlType::kF32, {e / 2}, [&](int64_t, uint8_t* out) {
      const std::vector<float> row(factors.begin(), factors.end());
      formats::EncodeRow(GgmlType::kF32, row.data(), e / 2, out);
    });
  };
  ExpectReference(model, Gguf(model, ArchName::kLlama, options));
}

// Llama 3.1's own numbers.
TEST_F(ArchitecturesTest, Llama3FactorsOfTheRealModel) {
  const auto factors = RopeFactors({RopeScalingKind::kLlama3, 8, 1, 4, 8192}, 128, 500000);
  const auto want = Llama3ByWavelength(500000, 128, 8, 1, 4, 8192);
  ASSERT_EQ(factors.size(), 64u);
  EXPECT_EQ(factors.front(), 1.0);
  EXPECT_EQ(factors.back(), 8.0);
  for (size_t i = 0; i < factors.size(); ++i) EXPECT_NEAR(factors[i], want[i], 1e-12) << i;
}

TEST_F(ArchitecturesTest, ScalingsOfRopeThatAreRefused) {
  const TinyModel model = Dense(ArchName::kLlama, 88);
  const auto folder = [&](const json& scaling, const std::string& part) {
    ExpectRefused(Folder(model, "llama", {{"rope_scaling", scaling}}), part);
  };
  folder({{"rope_type", "yarn"}, {"factor", 4.0}}, "yarn");
  folder({{"rope_type", "dynamic"}, {"factor", 4.0}}, "dynamic");
  folder({{"rope_type", "linear"}}, "factor is missing");
  folder({{"rope_type", "linear"}, {"factor", 0}}, "factor of rope_scaling is 0");
  folder({{"rope_type", "linear"}, {"factor", 2.0}, {"attention_factor", 1.2}}, "attention_factor");
  folder({{"rope_type", "llama3"},
          {"factor", 8.0},
          {"low_freq_factor", 4.0},
          {"high_freq_factor", 4.0},
          {"original_max_position_embeddings", 64}},
         "high_freq_factor");
  folder({{"rope_type", "llama3"}, {"factor", 8.0}}, "low_freq_factor is missing");
  ExpectRefused(Folder(model, "llama",
                       {{"rope_parameters", {{"rope_theta", 1e4}, {"rope_type", "default"}}},
                        {"rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}}}}),
                "rope_scaling");
  const auto gguf = [&](const std::function<void(GgufWriter&)>& add, const std::string& part) {
    GgufOptions options;
    options.add = add;
    ExpectRefused(Gguf(model, ArchName::kLlama, options), part);
  };
  for (const char* type : {"yarn", "longrope", "Linear"})
    gguf([&](GgufWriter& w) { w.AddString("llama.rope.scaling.type", type); }, "rope.scaling.type");
  gguf([](GgufWriter& w) { w.AddF32("llama.rope.scaling.factor", -2); }, "rope.scaling.factor");
  for (const float bad : {0.0f, -1.0f, NAN}) {
    gguf(
        [&](GgufWriter& w) {
          w.AddTensor("rope_freqs.weight", GgmlType::kF32, {32}, [&](int64_t, uint8_t* out) {
            formats::EncodeRow(GgmlType::kF32, std::vector<float>(32, bad).data(), 32, out);
          });
        },
        "rope_freqs.weight");
  }
}

// Goal: beyond its window a token is not seen, in all layers or in some, from every kind of file.
TEST_F(ArchitecturesTest, AttentionSlidesOverItsWindow) {
  TinyModel model = Dense(ArchName::kLlama, 89);
  ASSERT_EQ(model.config.num_layers, 2);
  const std::string whole = Folder(model, "mistral", {{"sliding_window", 12}});
  ExpectReference(model, whole);  // Of 12 tokens
  model.config.attention_windows = {5, 5};
  const std::string five = Folder(model, "mistral", {{"sliding_window", 5}});
  ExpectReference(model, five);
  EXPECT_NE(Logits(five), Logits(whole));
  GgufOptions options;
  options.add = [](GgufWriter& w) { w.AddU32("llama.attention.sliding_window", 5); };
  ExpectReference(model, Gguf(model, ArchName::kLlama, options));
  model.config.attention_windows = {1, 1};
  ExpectReference(model, Folder(model, "mistral", {{"sliding_window", 1}}));

  TinyModel qwen = Dense(ArchName::kQwen2, 90);
  const json slides = {{"use_sliding_window", true}, {"sliding_window", 4}};
  for (int64_t full = 0; full <= 2; ++full) {
    json changes = slides;
    changes["max_window_layers"] = full;
    qwen.config.attention_windows = {full > 0 ? 0 : 4, full > 1 ? 0 : 4};
    ExpectReference(qwen, Folder(qwen, "qwen2", changes));
  }
  json listed = slides;
  listed["layer_types"] = {"sliding_attention", "full_attention"};
  listed["max_window_layers"] = 0;  // Is not asked
  qwen.config.attention_windows = {4, 0};
  ExpectReference(qwen, Folder(qwen, "qwen2", listed));
}

// A prompt at once and token by token, in a cache of pages that the window leaves behind.
TEST_F(ArchitecturesTest, PiecesOfATextSlideAsTheWhole) {
  const TinyModel model = Dense(ArchName::kLlama, 92);
  const std::string path = Folder(model, "mistral", {{"sliding_window", 9}});
  const engine::Engine engine(engine::LoadModel(path), 1);
  const std::vector<int32_t> tokens = RandomTokens(80, model.config.vocab_size, 93);
  const auto want = engine::Session(engine).Append(tokens, engine::LogitsOf::kAll);
  engine::Session pieces(engine);
  std::vector<float> found = pieces.Append(std::span(tokens).first(31), engine::LogitsOf::kAll);
  for (size_t at = 31; at < tokens.size(); ++at) {
    const auto next = pieces.Append(std::span(tokens).subspan(at, 1), engine::LogitsOf::kAll);
    found.insert(found.end(), next.begin(), next.end());
  }
  EXPECT_EQ(found, want);
}

TEST_F(ArchitecturesTest, WindowsOfLayersAreReadAsTransformersReadsThem) {
  const TinyModel model = Dense(ArchName::kLlama, 89), qwen = Dense(ArchName::kQwen2, 90);
  ASSERT_EQ(model.config.context_length, 300);
  using Windows = std::vector<int64_t>;
  const auto windows = [](const std::string& path) {
    const ModelConfig config = engine::OpenModel(path)->config();
    EXPECT_GE(config.context_length, 300) << path;  // Not cut
    return config.attention_windows;
  };
  const auto mistral = [&](const json& changes) {
    return windows(Folder(model, "mistral", changes));
  };
  EXPECT_EQ(mistral({{"sliding_window", 24}}), (Windows{24, 24}));
  EXPECT_EQ(mistral({{"sliding_window", 299}}), (Windows{299, 299}));
  EXPECT_EQ(mistral({{"sliding_window", 300}}), Windows{});
  EXPECT_EQ(mistral({{"sliding_window", nullptr}}), Windows{});
  EXPECT_EQ(mistral({{"max_position_embeddings", 32768}}), (Windows{4096, 4096}));
  GgufOptions options;
  options.add = [](GgufWriter& w) { w.AddU32("llama.attention.sliding_window", 40); };
  EXPECT_EQ(windows(Gguf(model, ArchName::kLlama, options)), (Windows{40, 40}));
  EXPECT_EQ(windows(Folder(qwen, "qwen2", {{"sliding_window", 50}})), Windows{});
  json slides = {{"use_sliding_window", true}, {"sliding_window", 50}};
  EXPECT_EQ(windows(Folder(qwen, "qwen2", slides)), Windows{});  // From layer 28 on
  slides = {
      {"use_sliding_window", true}, {"max_position_embeddings", 32768}, {"max_window_layers", 1}};
  EXPECT_EQ(windows(Folder(qwen, "qwen2", slides)), (Windows{0, 4096}));
  ExpectRefused(Folder(qwen, "qwen2", {{"layer_types", {"sliding_attention"}}}), "layer_types");
  ExpectRefused(Folder(qwen, "qwen2", {{"layer_types", {"linear_attention"}}}), "linear_attention");
  ExpectRefused(
      Folder(qwen, "qwen2", {{"layer_types", std::vector<std::string>(50, "full_attention")}}),
      "layer_types has 50 entries");
  ExpectRefused(
      Folder(model, "mistral",
             {{"sliding_window", 24}, {"layer_types", {"sliding_attention", "full_attention"}}}),
      "full_attention");
  ExpectRefused(Folder(model, "mistral", {{"sliding_window", 0}}), "sliding_window");
  ExpectRefused(Folder(model, "llama", {{"use_sliding_window", true}}), "use_sliding_window");
}

TEST_F(ArchitecturesTest, OtherModelsAreRefusedByTheirKey) {
  const TinyModel model = Dense(ArchName::kLlama, 91);
  for (const json& change : std::vector<json>{{{"num_local_experts", 8}},
                                              {{"num_experts", 4}},
                                              {{"partial_rotary_factor", 0.5}},
                                              {{"mlp_bias", true}},
                                              {{"hidden_act", "gelu_pytorch_tanh"}},
                                              {{"model_type", "gemma3_text"}},
                                              {{"rope_theta", "much"}}}) {
    ExpectRefused(Folder(model, "llama", change), change.begin().key());
  }
  const auto gguf = [&](const std::function<void(GgufWriter&)>& add, const std::string& part) {
    GgufOptions options;
    options.add = add;
    ExpectRefused(Gguf(model, ArchName::kLlama, options), part);
  };
  gguf([](GgufWriter& w) { w.AddU32("llama.expert_count", 8); }, "llama.expert_count is 8");
  gguf([](GgufWriter& w) { w.AddBool("llama.attention.causal", false); }, "llama.attention.causal");
  gguf([](GgufWriter& w) { w.AddF32("llama.logit_scale", 0.5f); }, "llama.logit_scale");
  gguf([](GgufWriter& w) { w.AddF32("llama.final_logit_softcapping", 30); }, "softcapping");
  gguf([](GgufWriter& w) { w.AddU32("llama.rope.dimension_count", 32); }, "dimension_count");
  gguf([](GgufWriter& w) { w.AddU32("llama.vocab_size", 41); }, "llama.vocab_size");
  GgufOptions harmless;
  harmless.add = [](GgufWriter& w) {
    w.AddU32("llama.vocab_size", 40);
    w.AddU32("llama.expert_count", 0);
    w.AddBool("llama.attention.causal", true);
    w.AddU32("llama.rope.dimension_count", 64);
    w.AddU32("other.expert_count", 8);
  };
  ExpectReference(model, Gguf(model, ArchName::kLlama, harmless));
}

}  // namespace
}  // namespace tern::testing
