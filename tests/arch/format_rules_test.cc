// Which formats and architectures a shape fits, on the published shapes of BitNet b1.58
// (arXiv 2411.04965, tables 6 and 7) and on every combination of the switches.
#include <gtest/gtest.h>

#include "arch/model_config.h"

namespace tern {
namespace {

constexpr const char* kTernaryFormats[] = {"gguf/tq2_0", "gguf/tq1_0", "hf/bitnet",
                                           "hf/autobitnet"};

ModelConfig Published(int64_t hidden, int64_t ffn, int64_t heads, int64_t layers) {
  ModelConfig c;
  c.vocab_size = 32000;
  c.hidden_size = hidden;
  c.intermediate_size = ffn;
  c.num_heads = heads;
  c.num_kv_heads = heads;
  c.num_layers = layers;
  c.context_length = 2048;
  return c;
}
ModelConfig Size700M() { return Published(1536, 4096, 24, 24); }
ModelConfig Size1B3() { return Published(2048, 5460, 32, 24); }
ModelConfig Size3B() { return Published(3200, 8640, 32, 26); }

void ExpectFits(const ModelConfig& c, const std::string& format) {
  EXPECT_EQ(WhyFormatCannotHold(c, format), "") << format;
}
// The message must have every one of `words`.
void ExpectRefused(const ModelConfig& c, const std::string& format,
                   std::initializer_list<const char*> words) {
  const std::string why = WhyFormatCannotHold(c, format);
  EXPECT_NE(why, "") << format << " was accepted";
  for (const char* word : words) {
    EXPECT_NE(why.find(word), std::string::npos) << "\"" << word << "\" is not in: " << why;
  }
}

TEST(FormatRulesTest, Published700MFitsAllTernaryFormats) {
  for (const char* format : kTernaryFormats) ExpectFits(Size700M(), format);
}

TEST(FormatRulesTest, Published1B3And3BFitHuggingFaceOnly) {
  for (const ModelConfig& c : {Size1B3(), Size3B()}) {
    for (const char* format : {"gguf/tq2_0", "gguf/tq1_0"}) {
      ExpectRefused(c, format, {format, "256", "fits hf/bitnet, hf/autobitnet"});
    }
    ExpectFits(c, "hf/bitnet");
    ExpectFits(c, "hf/autobitnet");
  }
  // The first layer that does not fit is named with its shape.
  ExpectRefused(Size1B3(), "gguf/tq2_0", {"model.layers.0.mlp.down_proj.weight [2048, 5460]"});
  ExpectRefused(Size3B(), "gguf/tq2_0", {"model.layers.0.self_attn.q_proj.weight [3200, 3200]"});
}

TEST(FormatRulesTest, HfBitnetWantsOutputsInFours) {
  ModelConfig c = Published(64, 130, 4, 1);
  ExpectRefused(c, "hf/bitnet", {"mlp.gate_proj.weight [130, 64]", "fits tern/model"});
  c.intermediate_size = 132;
  ExpectFits(c, "hf/bitnet");
}

TEST(FormatRulesTest, DenseAndTernaryAreNeverMixedUp) {
  ModelConfig c = Size700M();
  for (const char* format : {"gguf/f16", "hf/bf16"}) {
    ExpectRefused(c, format, {"bitlinear", "fits gguf/tq2_0"});
  }
  c.linear = LinearKind::kDense;
  for (const char* format : kTernaryFormats) ExpectRefused(c, format, {"dense", "fits gguf/f16"});
  ExpectRefused(c, "gguf/i2_s", {"dense"});
  ExpectFits(c, "gguf/f16");
  ExpectFits(c, "hf/bf16");
}

TEST(FormatRulesTest, SquaredReluGoesToTransformersAndTheForkOnly) {
  ModelConfig c = Published(2560, 6912, 20, 30);  // 2B-4T
  c.num_kv_heads = 5;
  c.activation = Activation::kRelu2;
  EXPECT_EQ(ChooseGgufArch(c).name, ArchName::kBitnet158);
  EXPECT_EQ(ChooseHfArch(c).name, ArchName::kBitnet158);
  ExpectRefused(c, "gguf/tq2_0", {"mainline", "SiLU", "fits gguf/i2_s, hf/bitnet"});
  ExpectRefused(c, "gguf/tq1_0", {"mainline"});
  for (const char* format : {"gguf/i2_s", "hf/bitnet", "hf/autobitnet"}) {
    ExpectFits(c, format);
  }
  c.linear = LinearKind::kDense;
  ExpectRefused(c, "gguf/f16", {"mainline", "fits hf/bf16"});
  ExpectFits(Size700M(), "gguf/i2_s");
  c = Size700M();
  c.sub_norms = SubNorms::kNone;
  c.qk_norm = true;
  ExpectRefused(c, "gguf/i2_s", {"Microsoft's fork", "qwen3"});
}

TEST(FormatRulesTest, I2sRowsDivideBy128) {
  ModelConfig c = Published(3200, 8640, 32, 26);
  c.activation = Activation::kRelu2;
  ExpectRefused(c, "gguf/i2_s", {"128", "mlp.down_proj.weight [3200, 8640]"});
  c.intermediate_size = 8704;
  ExpectFits(c, "gguf/i2_s");
}

TEST(FormatRulesTest, UnknownFormatListsTheKnown) {
  ExpectRefused(Size700M(), "gguf/q4_k_m", {"unknown format", "gguf/tq2_0", "hf/bf16"});
  ExpectRefused(Size700M(), "", {"unknown format"});
}

// All 16 combinations of activation, sub-norms, QK norm and tied head.
TEST(FormatRulesTest, EveryCombinationHasTheRightArchitecture) {
  for (int bits = 0; bits < 16; ++bits) {
    ModelConfig c = Size700M();
    c.activation = bits & 1 ? Activation::kRelu2 : Activation::kSilu;
    c.sub_norms = bits & 2 ? SubNorms::kOutputs : SubNorms::kNone;
    c.qk_norm = bits & 4;
    c.tied_head = bits & 8;
    ArchName gguf = ArchName::kNone, hf = ArchName::kNone;
    const bool sub_norms = c.HasOutputNorms();
    if (!sub_norms && c.activation == Activation::kSilu) {
      gguf = hf = c.qk_norm ? ArchName::kQwen3 : ArchName::kLlama;
    } else if (sub_norms && !c.qk_norm) {
      hf = c.activation == Activation::kSilu ? ArchName::kBitnet : ArchName::kBitnet158;
      gguf = c.tied_head ? hf : ArchName::kNone;
    }
    EXPECT_EQ(ChooseGgufArch(c).name, gguf) << "bits " << bits;
    EXPECT_EQ(ChooseHfArch(c).name, hf) << "bits " << bits;
    EXPECT_NE(ChooseGgufArch(c).reason, "");
    EXPECT_NE(ChooseHfArch(c).reason, "");
  }
}

// Norms of every linear layer's own: BitLinear's in transformers, nobody's where the pre-norms are
// gone, and tern's model file holds all.
TEST(FormatRulesTest, NormsOfEveryLinearLayer) {
  ModelConfig c = Size700M();
  c.sub_norms = SubNorms::kEveryLinear;
  ExpectFits(c, "hf/bitnet");
  ExpectFits(c, "hf/autobitnet");
  ExpectFits(c, "tern/model");
  ExpectRefused(c, "gguf/tq2_0", {"norm before each linear layer", "hf/bitnet", "tern/model"});
  EXPECT_EQ(ChooseHfArch(c).name, ArchName::kLlama);
  c.qk_norm = true;
  EXPECT_EQ(ChooseHfArch(c).name, ArchName::kQwen3);
  c.linear = LinearKind::kDense;
  ExpectRefused(c, "hf/f32", {"when they are ternary", "This model fits tern/model"});
  c.linear = LinearKind::kBitLinear;
  c.sub_norms = SubNorms::kEveryLinearOnly;
  ExpectRefused(c, "hf/bitnet", {"lacks the norms before attention", "This model fits tern/model"});
  ExpectFits(c, "tern/model");
}

// Both bitnet implementations give attn_sub_norm the width of the model.
TEST(FormatRulesTest, SubNormsWantHeadsThatFillTheWidth) {
  ModelConfig c = Size700M();
  c.head_dim = 128;
  EXPECT_EQ(ChooseGgufArch(c).name, ArchName::kNone);
  EXPECT_EQ(ChooseHfArch(c).name, ArchName::kNone);
  ExpectRefused(c, "hf/bitnet", {"24 x 128 and 1536", "fits tern/model"});
  c.sub_norms = SubNorms::kNone;
  ExpectFits(c, "hf/bitnet");
  ExpectFits(c, "gguf/tq2_0");
}

}  // namespace
}  // namespace tern
