// Rotations fused into weights: Hadamard matrices are exact, rotations orthogonal, and the rotated
// model computes what the model did.
#include "ptq/rotation.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "engine/model_source.h"
#include "model/decoder.h"
#include "ptq/float_model.h"
#include "ptq/ledger.h"
#include "ptq/quantize_gguf.h"
#include "ptq/verify.h"
#include "tests/ptq/tiny_source.h"
#include "transfer/import.h"

namespace tern::ptq {
namespace {

namespace fs = std::filesystem;
using testing::TempFolder;

// Entries are +-1 and sums of them at most n: exact in fp64.
TEST(HadamardTest, IsExactlyOrthogonal) {
  int found = 0;
  for (int64_t n = 1; n <= 130; ++n) {
    const at::Tensor h = HadamardMatrix(n);
    if (!h.defined()) continue;
    ++found;
    ASSERT_EQ(h.size(0), n);
    EXPECT_TRUE(at::equal(h.abs(), at::ones_like(h))) << n;
    EXPECT_TRUE(at::equal(h.matmul(h.t()), at::eye(n, at::kDouble) * static_cast<double>(n))) << n;
  }
  // 1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 36, 44, 48, 60, 64, 68, 72, 76, 80, 84, 104, 108, 124, 128;
  // 40, 56, 88, 96, 112 and 120 are products, 52, 92, 100 and 116 want other constructions.
  EXPECT_EQ(found, 24);
  EXPECT_FALSE(HadamardMatrix(52).defined());
  EXPECT_FALSE(HadamardMatrix(6).defined());
}

// Q^T Q = I within the rounding of sums of n products of numbers of size 1: n eps each.
TEST(RotationTest, IsOrthogonalForEveryWidth) {
  for (const int64_t n : {1, 2, 3, 7, 16, 23, 52, 64, 80, 92, 96, 576, 896, 1536}) {
    const Rotation rotation(n, 7, "test");
    const at::Tensor q = rotation.Apply(at::eye(n, at::kDouble));
    const double off = (q.t().matmul(q) - at::eye(n, at::kDouble)).abs().max().item<double>();
    EXPECT_LT(off, static_cast<double>(n) * 0x1p-52) << n << ": " << rotation.Describe();
  }
  EXPECT_EQ(Rotation(576, 7, "test").Describe(), "Hadamard 12 x 48");
  EXPECT_EQ(Rotation(92, 7, "test").Describe(), "Hadamard 4 x orthogonal 23");
  EXPECT_EQ(Rotation(64, 7, "test").Describe(), "Hadamard 64");
}

// One large column becomes columns of one size, and other seeds are other rotations.
TEST(RotationTest, SpreadsAnOutlier) {
  at::Tensor x = at::zeros({1, 576}, at::kFloat);
  x[0][5] = 24;  // The square root of 576
  const at::Tensor y = Rotation(576, 7, "test").Apply(x);
  EXPECT_NEAR(y.abs().max().item<float>(), 1, 1e-6);
  EXPECT_NEAR(y.abs().min().item<float>(), 1, 1e-6);
  const at::Tensor all = at::eye(576, at::kFloat);
  EXPECT_FALSE(at::equal(Rotation(576, 7, "test").Apply(all), Rotation(576, 8, "test").Apply(all)));
}

struct Shape {
  const char* name;
  void (*change)(ModelConfig*);
};

ModelConfig SmallConfig() {
  ModelConfig c;
  c.vocab_size = 50;
  c.hidden_size = 24;  // Hadamard 24
  c.intermediate_size = 40;
  c.num_layers = 3;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.head_dim = 12;
  c.context_length = 32;
  c.linear = LinearKind::kDense;
  c.sub_norms = SubNorms::kNone;
  c.init_std = 0.2f;  // Layers that matter beside the stream
  return c;
}

constexpr Shape kShapes[] = {
    {"llama, tied", [](ModelConfig*) {}},
    {"qwen3, untied", [](ModelConfig* c) { c->qk_norm = true, c->tied_head = false; }},
    {"qwen2", [](ModelConfig* c) { c->qkv_bias = true; }},
    {"sub-norms", [](ModelConfig* c) { c->sub_norms = SubNorms::kOutputs; }},
    {"odd width",
     [](ModelConfig* c) { c->hidden_size = 46, c->head_dim = 6, c->num_kv_heads = 4; }},
};

// Gains, biases and everything else differ from what they are at the start.
model::Decoder Scattered(const ModelConfig& config) {
  model::Decoder decoder(config);
  decoder.Initialize(5);
  RandomStream random(6, "gains");
  for (const model::Parameter& parameter : decoder.parameters()) {
    if (parameter.spec.shape.size() != 1) continue;
    at::Tensor value = parameter.value.detach();
    for (int64_t i = 0; i < value.numel(); ++i)
      value[i] =
          (parameter.spec.role == ParameterRole::kNorm ? 1.0f : 0.0f) + 0.5f * random.NextNormal();
  }
  return decoder;
}

model::Decoder Rotated(const model::Decoder& decoder) {
  const ModelRotation rotation(decoder.config());
  model::Decoder out(ModelRotation::ConfigOf(decoder.config()));
  for (const model::Parameter& parameter : out.parameters()) {
    const std::string& name = parameter.spec.name;
    at::Tensor to = parameter.value.detach();
    if (rotation.IsFolded(name)) {
      to.fill_(1);
      continue;
    }
    const std::string norm = rotation.GainOf(name);
    const bool tied = name == "lm_head.weight" && decoder.config().tied_head;
    to.copy_(rotation.Rotate(name, decoder.Get(tied ? "model.embed_tokens.weight" : name).detach(),
                             norm.empty() ? at::Tensor() : decoder.Get(norm).detach()));
  }
  return out;
}

at::Tensor LogitsOf(const model::Decoder& decoder) {
  model::DecoderInput input;
  input.tokens_BT = at::arange(20, at::kLong).remainder(50).view({1, 20});
  return decoder.Logits(input, {});
}

double MaxOff(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

// How much larger a relative error of the embedding is in the logits.
double Amplification(const model::Decoder& plain, const model::Decoder& again) {
  constexpr double kPart = 1e-3;
  at::Tensor table = again.Get("model.embed_tokens.weight").detach();
  table.mul_(at::ones_like(table) + kPart * at::ones_like(table).cumsum(1).cos());
  const at::Tensor want = LogitsOf(plain);
  return MaxOff(want, LogitsOf(again)) / want.abs().max().item<double>() / kPart;
}

// Both compute the same function, each with its own rounding. A sum of K products in fp32 has an
// error of about sqrt(K) u of its size, u = 2^-24 (Higham and Mary, SIAM J. Sci. Comput. 41, 2019:
// beyond 8 times that with a probability below 1e-13); there are 9 products, norms or activations
// one behind the other in a layer, on two models, and the rotation is one more. They reach the
// logits with what the layers make of them.
TEST(ModelRotationTest, ComputesTheSameFunction) {
  for (const Shape& shape : kShapes) {
    ModelConfig config = SmallConfig();
    shape.change(&config);
    const model::Decoder plain = Scattered(config), rotated = Rotated(plain);
    const at::Tensor want = LogitsOf(plain);
    const double k = static_cast<double>(config.intermediate_size + config.hidden_size);
    const double bound = 8 * std::sqrt(k) * 0x1p-24 *
                         (2 * 9 * static_cast<double>(config.num_layers) + 1) *
                         std::max(1.0, Amplification(plain, Scattered(config)));
    const double size = want.abs().max().item<double>();
    EXPECT_LT(MaxOff(want, LogitsOf(rotated)), bound * size) << shape.name;
    EXPECT_LT(bound, 1e-2) << shape.name;  // Else it would hold nothing
    EXPECT_GT(size, 0.5) << shape.name;
    // What the rotation is for: the matrices are others.
    EXPECT_GT(MaxOff(plain.Get("model.layers.1.self_attn.v_proj.weight"),
                     rotated.Get("model.layers.1.self_attn.v_proj.weight")),
              0.1);
  }
}

class RotatedOutputTest : public ::testing::Test {
 protected:
  RotatedOutputTest() { WriteTinySource(folder_); }

  QuantizeOptions Options(const std::string& to, const std::string& name) const {
    QuantizeOptions options = TinyOptions(folder_, to, name);
    options.calibration = folder_ / "text.idx";
    options.rotate = true;
    return options;
  }

  TempFolder folder_;
};

// Eight bits leave next to nothing: a reversed rotation would show, in folders and GGUF.
TEST_F(RotatedOutputTest, StandsForItsSource) {
  testing::WriteHfFolder(
      testing::MakeTinyModel(testing::TinyConfig(ArchName::kQwen3, LinearKind::kDense), 3),
      folder_ / "tied");
  testing::WriteHfFolder(
      testing::MakeTinyModel(testing::TinyConfig(ArchName::kBitnet, LinearKind::kDense), 3),
      folder_ / "sub-norms");
  for (const auto& [to, source] :
       std::vector<std::pair<std::string, std::string>>{{"w8", "source"},
                                                        {"int8", "source"},
                                                        {"q8_0", "source"},
                                                        {"w8", "sub-norms"},
                                                        {"w8", "tied"},
                                                        {"q8_0", "tied"}}) {
    QuantizeOptions options = Options(to, StrCat("out-", source, to, to[0] == 'q' ? ".gguf" : ""));
    options.source = folder_ / source;
    const QuantizeReport report = QuantizeModel(options);
    EXPECT_LT(report.mean_kl, 2e-3) << to;
    EXPECT_FALSE(engine::LoadModel(options.output).config.tied_head) << to;
    VerifyOptions verify;
    verify.output = options.output;
    verify.source = options.source;
    const VerifyReport verified = VerifyQuantized(verify);
    EXPECT_EQ(verified.compared, report.matrices) << to;
    EXPECT_LT(verified.worst_error, 1e-3) << to;
  }
}

// Stopped behind the first layer, the rest has the same bytes.
TEST_F(RotatedOutputTest, GoesOnToTheSameBytes) {
  const QuantizeOptions whole = Options("int4", "whole");
  QuantizeModel(whole);
  QuantizeOptions cut = Options("int4", "cut");
  cut.progress = [](int64_t done, int64_t) {
    if (done == 1) throw StoppedError("here");
  };
  EXPECT_THROW(QuantizeModel(cut), StoppedError);
  cut.rotate = false;
  EXPECT_THROW(QuantizeModel(cut), InputError);  // Another job
  cut = Options("int4", "cut");
  QuantizeModel(cut);
  for (const char* file : {"model.safetensors", "config.json", "ledger.jsonl"})
    EXPECT_EQ(ReadFile(whole.output + "/" + file), ReadFile(cut.output + "/" + file)) << file;
  EXPECT_NE(ReadFile(whole.output + "/ledger.jsonl").find("\"rotation\":\"stream Hadamard"),
            std::string::npos);
}

TEST_F(RotatedOutputTest, ASizeIsChosenForTheRotatedModel) {
  QuantizeOptions options = Options("", "mixed.gguf");
  options.to_bits = 9;
  const QuantizeReport report = QuantizeModel(options);
  ASSERT_TRUE(report.plan.has_value());
  EXPECT_EQ(report.size_bytes, report.plan->chosen.size_bytes);
  EXPECT_LT(report.mean_kl, 0.1);
}

TEST_F(RotatedOutputTest, RefusesWhatItCannotDo) {
  QuantizeOptions options = Options("q8_0", "out.gguf");
  options.imatrix = folder_ / "importance.gguf";
  EXPECT_THROW(QuantizeModel(options), UsageError);
  options.rotate = false;
  options.method = "rtn";
  EXPECT_THROW(QuantizeModel(options), UsageError);  // A file that nothing uses
  options.imatrix.clear();
  options.calibration.clear();
  options.method = "imatrix";
  EXPECT_THROW(QuantizeModel(options), UsageError);  // Nothing to weigh by
  // llama.cpp's bitnet has a tied head.
  testing::WriteHfFolder(
      testing::MakeTinyModel(testing::TinyConfig(ArchName::kBitnet, LinearKind::kDense), 3),
      folder_ / "bitnet");
  options = Options("q8_0", "other.gguf");
  options.source = folder_ / "bitnet";
  try {
    QuantizeModel(options);
    ADD_FAILURE() << "not refused";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("--rotate unties the head"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace tern::ptq
