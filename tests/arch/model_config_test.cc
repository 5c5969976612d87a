// ModelConfig: validation, the parameter table, counts of published models, JSON and GGUF names.
// What is compared with published figures says where they come from.
#include "arch/model_config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <set>

#include "arch/gguf_names.h"
#include "arch/model_config_json.h"
#include "base/error.h"

namespace tern {
namespace {

ModelConfig Small() {
  ModelConfig c;
  c.vocab_size = 100;
  c.hidden_size = 64;
  c.intermediate_size = 128;
  c.num_layers = 2;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.context_length = 32;
  return c;
}

// microsoft/bitnet-b1.58-2B-4T (its config.json).
ModelConfig BitNet2B() {
  ModelConfig c;
  c.vocab_size = 128256;
  c.hidden_size = 2560;
  c.intermediate_size = 6912;
  c.num_layers = 30;
  c.num_heads = 20;
  c.num_kv_heads = 5;
  c.context_length = 4096;
  c.rope_theta = 500000.0f;
  c.activation = Activation::kRelu2;
  return c;
}

TEST(ModelConfigTest, SmallOneIsValid) {
  EXPECT_NO_THROW(ValidateModelConfig(Small()));
  EXPECT_EQ(Small().HeadDim(), 16);
  EXPECT_NO_THROW(ValidateModelConfig(BitNet2B()));
}

struct BadCase {
  const char* named;  // What the message must name
  std::function<void(ModelConfig*)> damage;
};

TEST(ModelConfigTest, EachBrokenRuleIsNamed) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const BadCase cases[] = {
      {"vocab_size", [](ModelConfig* c) { c->vocab_size = 1; }},
      {"hidden_size", [](ModelConfig* c) { c->hidden_size = 0; }},
      {"hidden_size", [](ModelConfig* c) { c->hidden_size = -64; }},
      {"intermediate_size", [](ModelConfig* c) { c->intermediate_size = 0; }},
      {"num_layers", [](ModelConfig* c) { c->num_layers = 0; }},
      {"num_heads", [](ModelConfig* c) { c->num_heads = 0; }},
      {"num_kv_heads", [](ModelConfig* c) { c->num_kv_heads = 0; }},
      {"num_kv_heads", [](ModelConfig* c) { c->num_kv_heads = 8; }},
      {"num_kv_heads", [](ModelConfig* c) { c->num_kv_heads = 3; }},
      {"num_heads = 4", [](ModelConfig* c) { c->hidden_size = 66; }},
      {"even width", [](ModelConfig* c) { c->head_dim = 15; }},
      {"head_dim", [](ModelConfig* c) { c->head_dim = -2; }},
      {"context_length", [](ModelConfig* c) { c->context_length = 0; }},
      {"rope_theta", [=](ModelConfig* c) { c->rope_theta = nan; }},
      {"norm_eps", [](ModelConfig* c) { c->norm_eps = 0; }},
      {"init_std", [](ModelConfig* c) { c->init_std = -1; }},
      {"attention_windows (how many)", [](ModelConfig* c) { c->attention_windows = {8}; }},
      {"attention_windows",
       [](ModelConfig* c) {
         c->attention_windows = {8, -1};
       }},
      // 127 K < 2^24 (ARCHITECTURE.md, "Numbers"): 132104 is the last K.
      {"intermediate_size", [](ModelConfig* c) { c->intermediate_size = 132105; }},
      // Each is in its own range, together they would overflow counts.
      {"num_heads * head_dim",
       [](ModelConfig* c) {
         c->linear = LinearKind::kDense;
         c->num_heads = 10000;
         c->head_dim = 1 << 20;
       }},
  };
  for (const BadCase& bad : cases) {
    ModelConfig c = Small();
    bad.damage(&c);
    try {
      ValidateModelConfig(c);
      ADD_FAILURE() << "accepted a config with a bad " << bad.named;
    } catch (const RecipeError& error) {
      EXPECT_NE(std::string(error.what()).find(bad.named), std::string::npos) << error.what();
    }
  }
}

TEST(ModelConfigTest, WindowsOfAttention) {
  EXPECT_EQ(WindowsWithin({8, 0, 64, 100}, 64), (std::vector<int64_t>{8, 0, 0, 0}));
  EXPECT_TRUE(WindowsWithin({64, 0, 65}, 64).empty());
  ModelConfig c = Small();
  EXPECT_EQ(c.WindowOf(1), 0);
  EXPECT_EQ(CutToWindow(c), c);
  c.attention_windows = {0, 8};
  ValidateModelConfig(c);
  EXPECT_EQ(c.WindowOf(0), 0);
  EXPECT_EQ(c.WindowOf(1), 8);
  ModelConfig cut = Small();
  cut.context_length = 8;
  EXPECT_EQ(CutToWindow(c), cut);
}

TEST(ModelConfigTest, WidestBitLinearIsAccepted) {
  ModelConfig c = Small();
  c.intermediate_size = 132104;
  EXPECT_NO_THROW(ValidateModelConfig(c));
  c.linear = LinearKind::kDense;
  c.intermediate_size = 132105;
  EXPECT_NO_THROW(ValidateModelConfig(c));
}

TEST(ModelConfigTest, TableHasEveryPartOnceInTheFixedOrder) {
  ModelConfig c = Small();
  c.num_layers = 1;
  c.qk_norm = true;
  c.tied_head = false;
  c.head_dim = 8;
  struct Want {
    const char* name;
    std::vector<int64_t> shape;
    ParameterRole role;
  };
  using enum ParameterRole;
  const Want want[] = {
      {"model.embed_tokens.weight", {100, 64}, kEmbedding},
      {"model.layers.0.input_layernorm.weight", {64}, kNorm},
      {"model.layers.0.self_attn.q_proj.weight", {32, 64}, kLinear},
      {"model.layers.0.self_attn.k_proj.weight", {16, 64}, kLinear},
      {"model.layers.0.self_attn.v_proj.weight", {16, 64}, kLinear},
      {"model.layers.0.self_attn.q_norm.weight", {8}, kNorm},
      {"model.layers.0.self_attn.k_norm.weight", {8}, kNorm},
      {"model.layers.0.self_attn.attn_sub_norm.weight", {32}, kNorm},
      {"model.layers.0.self_attn.o_proj.weight", {64, 32}, kLinear},
      {"model.layers.0.post_attention_layernorm.weight", {64}, kNorm},
      {"model.layers.0.mlp.gate_proj.weight", {128, 64}, kLinear},
      {"model.layers.0.mlp.up_proj.weight", {128, 64}, kLinear},
      {"model.layers.0.mlp.ffn_sub_norm.weight", {128}, kNorm},
      {"model.layers.0.mlp.down_proj.weight", {64, 128}, kLinear},
      {"model.norm.weight", {64}, kNorm},
      {"lm_head.weight", {100, 64}, kHead},
  };
  const auto table = ParameterTable(c);
  ASSERT_EQ(table.size(), std::size(want));
  for (size_t i = 0; i < table.size(); ++i) {
    EXPECT_EQ(table[i].name, want[i].name);
    EXPECT_EQ(table[i].shape, want[i].shape) << want[i].name;
    EXPECT_EQ(table[i].role, want[i].role) << want[i].name;
  }
}

TEST(ModelConfigTest, OptionalPartsFollowTheirSwitches) {
  ModelConfig c = Small();
  c.sub_norms = SubNorms::kNone;
  c.qk_norm = false;
  c.tied_head = true;
  const auto table = ParameterTable(c);
  // Embedding, 2 x (7 linears + 2 norms), final norm.
  EXPECT_EQ(table.size(), 1u + 2 * 9 + 1);
  for (const auto& spec : table) {
    EXPECT_EQ(spec.name.find("sub_norm"), std::string::npos);
    EXPECT_EQ(spec.name.find("q_norm"), std::string::npos);
    EXPECT_NE(spec.name, "lm_head.weight");
  }
}

TEST(ModelConfigTest, NormsBeforeEveryLinearLayer) {
  ModelConfig c = Small();
  c.sub_norms = SubNorms::kEveryLinear;
  c.qk_norm = false;
  c.tied_head = true;
  auto table = ParameterTable(c);
  // Embedding, 2 x (7 linears with a norm each + 2 norms), final norm.
  ASSERT_EQ(table.size(), 1u + 2 * 16 + 1);
  EXPECT_EQ(table[1].name, "model.layers.0.input_layernorm.weight");
  EXPECT_EQ(table[2].name, "model.layers.0.self_attn.q_proj.rms_norm.weight");
  EXPECT_EQ(table[2].role, ParameterRole::kNorm);
  for (size_t i = 1; i < table.size(); ++i) {  // As wide as the inputs of what it stands before
    if (table[i].role == ParameterRole::kLinear) {
      EXPECT_EQ(table[i - 1].name,
                table[i].name.substr(0, table[i].name.rfind('.')) + ".rms_norm.weight");
      EXPECT_EQ(table[i - 1].shape, (std::vector<int64_t>{table[i].shape[1]}));
    }
  }
  c.sub_norms = SubNorms::kEveryLinearOnly;
  table = ParameterTable(c);
  EXPECT_EQ(table.size(), 1u + 2 * 14 + 1);
  for (const auto& spec : table) EXPECT_EQ(spec.name.find("layernorm"), std::string::npos);
}

TEST(ModelConfigTest, CountsOfPublishedModels) {
  EXPECT_EQ(CountParameters(BitNet2B()), 2412820480);  // Its model card: 2,412,820,480
  // Qwen/Qwen3-0.6B (config.json): 596,049,920 parameters with the tied head counted once.
  ModelConfig qwen;
  qwen.vocab_size = 151936;
  qwen.hidden_size = 1024;
  qwen.intermediate_size = 3072;
  qwen.num_layers = 28;
  qwen.num_heads = 16;
  qwen.num_kv_heads = 8;
  qwen.head_dim = 128;
  qwen.context_length = 40960;
  qwen.linear = LinearKind::kDense;
  qwen.sub_norms = SubNorms::kNone;
  qwen.qk_norm = true;
  EXPECT_EQ(CountParameters(qwen), 596049920);
}

TEST(ModelConfigJsonTest, RoundTripsEveryField) {
  ModelConfig c = BitNet2B();
  c.head_dim = 64;
  c.norm_eps = 3e-6f;
  c.linear = LinearKind::kDense;
  c.sub_norms = SubNorms::kNone;
  c.qk_norm = true;
  c.tied_head = false;
  c.init_std = 0.1f;
  c.attention_windows.assign(static_cast<size_t>(c.num_layers), 512);
  EXPECT_EQ(ModelConfigFromJson(nlohmann::json::parse(ToJson(c).dump())), c);
}

TEST(ModelConfigJsonTest, EveryPlacementOfNormsAndTheFlagOfEarlierFiles) {
  ModelConfig c = Small();
  for (const SubNorms sub_norms :
       {SubNorms::kNone, SubNorms::kOutputs, SubNorms::kEveryLinear, SubNorms::kEveryLinearOnly}) {
    c.sub_norms = sub_norms;
    EXPECT_EQ(ModelConfigFromJson(ToJson(c)), c);
  }
  nlohmann::json json = ToJson(c);
  json["sub_norms"] = true;
  EXPECT_EQ(ModelConfigFromJson(json).sub_norms, SubNorms::kOutputs);
  json["sub_norms"] = false;
  EXPECT_EQ(ModelConfigFromJson(json).sub_norms, SubNorms::kNone);
}

// The FormatError of reading `json` must name `field`.
void ExpectJsonRefused(const nlohmann::json& json, const std::string& field) {
  try {
    ModelConfigFromJson(json);
    ADD_FAILURE() << "accepted with a bad " << field << ": " << json.dump();
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find(field), std::string::npos) << error.what();
  }
}

TEST(ModelConfigJsonTest, MissingUnknownAndIllTypedFieldsAreNamed) {
  const nlohmann::json whole = ToJson(Small());
  for (const auto& item : whole.items()) {
    nlohmann::json json = whole;
    json.erase(item.key());
    ExpectJsonRefused(json, item.key());
    for (const char* value : {"[]", "{}", "null", "\"4 layers\""}) {
      json[item.key()] = nlohmann::json::parse(value);
      ExpectJsonRefused(json, item.key());
    }
  }
  nlohmann::json json = whole;
  json["experts"] = 8;
  ExpectJsonRefused(json, "experts");
  for (const char* value : {"3", "{}", "[3, 4.5]", "[true]"}) {
    json = whole;
    json["attention_windows"] = nlohmann::json::parse(value);
    ExpectJsonRefused(json, "attention_windows");
  }
  json = whole;
  json["activation"] = "gelu";
  ExpectJsonRefused(json, "gelu");
  ExpectJsonRefused(nlohmann::json(3), "object");
}

// Nothing is rounded, wrapped around or taken for another type on the way in.
TEST(ModelConfigJsonTest, NumbersAndFlagsAreNotConverted) {
  const std::pair<const char*, const char*> cases[] = {
      {"hidden_size", "64.5"},   {"hidden_size", "64.0"},
      {"num_layers", "true"},    {"vocab_size", "18446744073709551615"},
      {"rope_theta", "true"},    {"tied_head", "1"},
      {"sub_norms", "\"true\""}, {"linear", "1"}};
  for (const auto& [field, value] : cases) {
    nlohmann::json json = ToJson(Small());
    json[field] = nlohmann::json::parse(value);
    ExpectJsonRefused(json, field);
  }
  nlohmann::json json = ToJson(Small());
  json["rope_theta"] = 500000;  // A whole number is a number
  EXPECT_EQ(ModelConfigFromJson(json).rope_theta, 500000.0f);
}

TEST(GgufNamesTest, EveryParameterHasItsOwnName) {
  ModelConfig c = Small();
  c.qk_norm = true;
  c.tied_head = false;
  c.num_layers = 12;
  std::set<std::string> names;
  for (const auto& spec : ParameterTable(c)) names.insert(GgufName(spec.name));
  EXPECT_EQ(names.size(), ParameterTable(c).size());
  EXPECT_TRUE(names.contains("blk.11.attn_sub_norm.weight"));
  EXPECT_TRUE(names.contains("blk.0.ffn_down.weight"));
  EXPECT_TRUE(names.contains("token_embd.weight"));
  EXPECT_TRUE(names.contains("output_norm.weight"));
  EXPECT_TRUE(names.contains("output.weight"));
  EXPECT_EQ(ScaleName("blk.3.attn_q.weight"), "blk.3.attn_q.scale");
  EXPECT_THROW(GgufName("model.layers.0.mlp.router.weight"), BugError);
}

// The reference form (llama.cpp's converter): reshape(H, 2, E/2, K).swap(1, 2), that is: file row
// h E + 2 i + j is model row h E + j E/2 + i.
TEST(GgufNamesTest, PermutedRowIsTheInterleavingOfEachHead) {
  for (const int64_t e : {2, 4, 64, 128}) {
    for (int64_t h = 0; h < 3; ++h) {
      for (int64_t j = 0; j < 2; ++j) {
        for (int64_t i = 0; i < e / 2; ++i) {
          EXPECT_EQ(PermutedRow(h * e + j * (e / 2) + i, e), h * e + 2 * i + j);
        }
      }
    }
  }
  EXPECT_TRUE(IsPermuted(ArchName::kLlama, "model.layers.0.self_attn.q_proj.weight"));
  EXPECT_TRUE(IsPermuted(ArchName::kLlama, "model.layers.0.self_attn.k_proj.weight"));
  EXPECT_FALSE(IsPermuted(ArchName::kLlama, "model.layers.0.self_attn.v_proj.weight"));
  EXPECT_FALSE(IsPermuted(ArchName::kQwen2, "model.layers.0.self_attn.q_proj.weight"));
  EXPECT_FALSE(IsPermuted(ArchName::kQwen3, "model.layers.0.self_attn.q_proj.weight"));
  EXPECT_FALSE(IsPermuted(ArchName::kBitnet, "model.layers.0.self_attn.q_proj.weight"));
}

TEST(GgufNamesTest, Biases) {
  EXPECT_EQ(GgufName("model.layers.12.self_attn.k_proj.bias"), "blk.12.attn_k.bias");
}

TEST(GgufNamesTest, ArchitecturesGoBothWays) {
  for (const ArchName arch : {ArchName::kLlama, ArchName::kQwen2, ArchName::kQwen3,
                              ArchName::kBitnet, ArchName::kBitnet158}) {
    EXPECT_EQ(ArchFromGgufName(GgufArchName(arch)), arch);
  }
  EXPECT_EQ(ArchFromGgufName("gpt2"), ArchName::kNone);
  EXPECT_THROW(GgufArchName(ArchName::kNone), BugError);
}

}  // namespace
}  // namespace tern
