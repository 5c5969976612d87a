// Models in the block types of GGUF (block_matrix.h): the matrices stay blocks, and the logits are
// those of the same values as F32, for every type and architecture: bit for bit for types of
// floats, within the rounding of 16-bit activations for codes (kernels/code_gemm); the same bits on
// any number of threads, whole or a token at a time.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "engine/weight_table.h"
#include "tests/engine/tiny_blocks.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

using engine::BlockMatrix;
using engine::CodeActivations;
using engine::DenseMatrix;
using engine::Engine;
using engine::LogitsOf;
using engine::ModelWeights;
using engine::Session;
using formats::GgmlType;

bool IsFloats(GgmlType type) {
  return type == GgmlType::kF32 || type == GgmlType::kF16 || type == GgmlType::kBf16 ||
         type == GgmlType::kQ8_0;
}

// Activations before a product with codes are rounded by 2^-16 of the largest of 256; nine such
// products follow each other in a tiny model, each of which may double the size of an error. A
// wrong code or scale moves a logit by more than 0.1 of the largest.
void ExpectWithinRounding(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  float largest = 0;
  for (const float value : want) largest = std::max(largest, std::fabs(value));
  for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 0x1p-10f * largest) << i;
}

std::vector<float> Logits(const std::string& path, const std::vector<int32_t>& tokens, int threads,
                          CodeActivations activations = CodeActivations::kInt16) {
  ModelWeights weights = engine::LoadModel(path);
  engine::SetActivations(activations, &weights);
  const Engine engine(std::move(weights), threads);
  return Session(engine).Append(tokens, LogitsOf::kAll);
}

std::vector<float> LogitsOneByOne(const std::string& path, const std::vector<int32_t>& tokens,
                                  int threads,
                                  CodeActivations activations = CodeActivations::kInt16) {
  ModelWeights weights = engine::LoadModel(path);
  engine::SetActivations(activations, &weights);
  const Engine engine(std::move(weights), threads);
  Session session(engine);
  std::vector<float> logits;
  for (const int32_t token : tokens) {
    const std::vector<float> part = session.Append(std::vector<int32_t>{token});
    logits.insert(logits.end(), part.begin(), part.end());
  }
  return logits;
}

void ExpectFiniteAndAlive(const std::vector<float>& logits) {
  float lowest = INFINITY, highest = -INFINITY;
  for (const float logit : logits) {
    ASSERT_TRUE(std::isfinite(logit));
    lowest = std::min(lowest, logit);
    highest = std::max(highest, logit);
  }
  EXPECT_GT(highest - lowest, 0.1f);
}

using Case = std::tuple<GgmlType, ArchName>;

class BlockModelTest : public ::testing::TestWithParam<Case> {
 protected:
  BlockModelTest() {
    WriteGguf(model_, arch_, blocks_path_, Options(&blocks_));
    WriteGguf(model_, arch_, floats_path_, Options(nullptr));
  }
  static GgufOptions Options(const TinyBlocks* blocks) {
    GgufOptions options;
    options.linear = options.table = GgmlType::kF32;
    options.activation = std::nullopt;
    options.blocks = blocks;
    return options;
  }

  TempFolder folder_;
  std::string blocks_path_ = folder_ / "blocks.gguf", floats_path_ = folder_ / "floats.gguf";
  GgmlType type_ = std::get<0>(GetParam());
  ArchName arch_ = std::get<1>(GetParam());
  TinyModel model_ = MakeTinyModel(TinyConfig(arch_, LinearKind::kDense), 81);
  TinyBlocks blocks_ = MakeBlocks(type_, type_, &model_, 82);
};

TEST_P(BlockModelTest, LogitsAreThoseOfTheValues) {
  const std::vector<int32_t> tokens = RandomTokens(9, model_.config.vocab_size, 83);
  const std::vector<float> want = Logits(floats_path_, tokens, 1);
  ExpectFiniteAndAlive(want);
  const std::vector<float> first = Logits(blocks_path_, tokens, 1);
  if (IsFloats(type_)) {
    EXPECT_EQ(first, want);
  } else {
    ExpectWithinRounding(first, want);
  }
  for (const int threads : {1, 2, 3}) {
    SCOPED_TRACE(threads);
    EXPECT_EQ(Logits(blocks_path_, tokens, threads), first);
    EXPECT_EQ(LogitsOneByOne(blocks_path_, tokens, threads), first);
  }
}

// Goal: what evaluations ask for with --activations f32 is the model of the values, bit for bit.
TEST_P(BlockModelTest, DecodedToFloatItIsTheModelOfTheValues) {
  const std::vector<int32_t> tokens = RandomTokens(9, model_.config.vocab_size, 83);
  ModelWeights weights = engine::LoadModel(blocks_path_);
  engine::SetActivations(CodeActivations::kFloat, &weights);
  const engine::Engine engine(std::move(weights), 1);
  engine::Session session(engine, 9);
  EXPECT_EQ(session.Append(tokens, engine::LogitsOf::kAll), Logits(floats_path_, tokens, 1));
}

// 8-bit activations: rounding to a step of 2^-7 of the largest of 32, about twice their root mean
// square, is an error of 2 * 2^-7 / sqrt(12) = 0.5 % of a product; nine follow each other: 1.5 %,
// and three times that is the bound. Types that are no codes do not notice. The same bits on any
// number of threads, whole or a token at a time.
TEST_P(BlockModelTest, EightBitActivationsAreNearTheValues) {
  const std::vector<int32_t> tokens = RandomTokens(9, model_.config.vocab_size, 83);
  const std::vector<float> exact = Logits(floats_path_, tokens, 1);
  const auto kInt8 = CodeActivations::kInt8;
  const std::vector<float> first = Logits(blocks_path_, tokens, 1, kInt8);
  if (type_ == GgmlType::kF16 || type_ == GgmlType::kBf16) {
    EXPECT_EQ(first, exact);
  } else {
    EXPECT_NE(first, Logits(blocks_path_, tokens, 1));
    float largest = 0, difference = 0;
    for (size_t i = 0; i < exact.size(); ++i) {
      largest = std::max(largest, std::fabs(exact[i]));
      difference = std::max(difference, std::fabs(first[i] - exact[i]));
    }
    EXPECT_LT(difference, 0.045f * largest);
  }
  for (const int threads : {1, 3}) {
    EXPECT_EQ(Logits(blocks_path_, tokens, threads, kInt8), first);
    EXPECT_EQ(LogitsOneByOne(blocks_path_, tokens, threads, kInt8), first);
  }
}

// Goal: nothing is expanded when it is loaded, and every row is in the model's place.
TEST_P(BlockModelTest, MatricesStayBlocksOfTheFile) {
  const ModelWeights weights = engine::LoadModel(blocks_path_);
  const auto check = [&](const auto& matrix, const std::string& name) {
    const auto* found = std::get_if<BlockMatrix>(&matrix);
    ASSERT_NE(found, nullptr) << name;
    EXPECT_EQ(found->type, type_) << name;
    EXPECT_EQ(found->bytes.size(), blocks_.at(name).bytes.size()) << name;
    EXPECT_EQ(engine::ValuesOf(matrix), model_.floats.at(name)) << name;
  };
  for (const ParameterSpec& spec : ParameterTable(model_.config)) {
    if (spec.role == ParameterRole::kLinear) check(engine::LinearOf(weights, spec.name), spec.name);
    if (spec.role == ParameterRole::kEmbedding) check(weights.embedding, spec.name);
    if (spec.role == ParameterRole::kHead) check(*weights.head, spec.name);
  }
}

// Goal: a scale that is no number is refused at load with the tensor's name, in a linear layer (the
// last block of its last row) and in the embedding.
TEST_P(BlockModelTest, ScalesThatAreNoNumbersAreRefused) {
  const BlockType& type = TypeOf(type_);
  const auto size = static_cast<size_t>(formats::InfoOf(type_).block_bytes);
  const auto refuse = [&](const char* name, size_t offset, float bad) {
    TinyBlocks damaged = blocks_;
    std::vector<uint8_t>& bytes = damaged.at(name).bytes;
    const uint16_t bits =
        type_ == GgmlType::kBf16 ? formats::Fp32ToBf16(bad) : formats::Fp32ToFp16(bad);
    std::memcpy(bytes.data() + bytes.size() - size + offset, &bits, sizeof bits);
    WriteGguf(model_, arch_, blocks_path_, Options(&damaged));
    try {
      engine::LoadModel(blocks_path_);
      ADD_FAILURE() << name << " was taken with a scale of " << bad;
    } catch (const FormatError& error) {
      const std::string text = error.what();
      EXPECT_NE(text.find(blocks_path_ + ": " + GgufName(name) + ", row "), std::string::npos)
          << text;
      EXPECT_NE(text.find(" holds "), std::string::npos) << text;
    }
  };
  refuse("model.layers.1.self_attn.k_proj.weight", type.d_offset, INFINITY);
  refuse("model.embed_tokens.weight", type.d_offset, NAN);
  if (type.min != 0) refuse("model.layers.0.mlp.down_proj.weight", type.min_offset, -INFINITY);
}

std::string NameOf(const ::testing::TestParamInfo<Case>& info) {
  std::string arch = GgufArchName(std::get<1>(info.param));
  std::erase_if(arch, [](char c) { return c == '-' || c == '.'; });
  return StrCat(formats::InfoOf(std::get<0>(info.param)).name, "_", arch);
}

// Every type where q and k have their rows in pairs; the other architectures with two of them.
INSTANTIATE_TEST_SUITE_P(Types, BlockModelTest,
                         ::testing::Combine(::testing::ValuesIn(Types()),
                                            ::testing::Values(ArchName::kLlama)),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Archs, BlockModelTest,
                         ::testing::Combine(::testing::Values(GgmlType::kQ4_0, GgmlType::kQ6_K),
                                            ::testing::Values(ArchName::kQwen3, ArchName::kBitnet,
                                                              ArchName::kBitnet158)),
                         NameOf);

class BlockFilesTest : public ::testing::Test {
 protected:
  TempFolder folder_;
  std::string path_ = folder_ / "model.gguf";
};

// llama.cpp's own mix for ternary models: TQ2_0 layers, a Q4_K embedding and a Q6_K head. The
// integer products of the layers are not touched by the tables' type.
TEST_F(BlockFilesTest, TernaryLayersBetweenBlockTables) {
  TinyModel model = MakeTinyModel(TinyConfig(ArchName::kLlama), 84);
  TinyBlocks blocks = MakeBlocks(GgmlType::kQ4_K, GgmlType::kQ4_K, &model, 85);
  RandomStream random(86, "head");
  const int64_t v = model.config.vocab_size, d = model.config.hidden_size;
  blocks["lm_head.weight"] = RandomBlocks(GgmlType::kQ6_K, v, d, random);
  model.floats["lm_head.weight"] = Decoded(blocks["lm_head.weight"], v, d);
  GgufOptions options;
  WriteGguf(model, ArchName::kLlama, folder_ / "floats.gguf", options);
  options.blocks = &blocks;
  WriteGguf(model, ArchName::kLlama, path_, options);
  const std::vector<int32_t> tokens = RandomTokens(12, v, 87);
  const std::vector<float> want = Logits(folder_ / "floats.gguf", tokens, 1);
  ExpectFiniteAndAlive(want);
  const std::vector<float> got = Logits(path_, tokens, 2);
  ExpectWithinRounding(got, want);
  EXPECT_EQ(LogitsOneByOne(path_, tokens, 2), got);
}

// llama.cpp's mixes give each matrix a type of its own, also within one group of q, k and v.
TEST_F(BlockFilesTest, EveryMatrixMayHaveATypeOfItsOwn) {
  TinyModel model = MakeTinyModel(TinyConfig(ArchName::kLlama, LinearKind::kDense), 88);
  TinyBlocks blocks;
  RandomStream random(89, "mixed");
  size_t next = 0;
  for (const ParameterSpec& spec : ParameterTable(model.config)) {
    if (spec.role == ParameterRole::kNorm || ++next % 6 == 0) continue;  // Some stay F32
    const GgmlType type = kTypes[next % std::size(kTypes)].type;
    blocks[spec.name] = RandomBlocks(type, spec.shape[0], spec.shape[1], random);
    model.floats[spec.name] = Decoded(blocks[spec.name], spec.shape[0], spec.shape[1]);
  }
  GgufOptions options;
  options.linear = options.table = GgmlType::kF32;
  options.activation = std::nullopt;
  WriteGguf(model, ArchName::kLlama, folder_ / "floats.gguf", options);
  options.blocks = &blocks;
  WriteGguf(model, ArchName::kLlama, path_, options);
  const std::vector<int32_t> tokens = RandomTokens(140, model.config.vocab_size, 90);
  ExpectWithinRounding(Logits(path_, tokens, 3), Logits(folder_ / "floats.gguf", tokens, 1));
}

// Goal: the weights hold the mapping themselves, so the file may be replaced or removed.
TEST_F(BlockFilesTest, TheFileMayGoWhileTheModelRuns) {
  TinyModel model = MakeTinyModel(TinyConfig(ArchName::kQwen3, LinearKind::kDense), 91);
  const TinyBlocks blocks = MakeBlocks(GgmlType::kQ5_K, GgmlType::kQ8_0, &model, 92);
  GgufOptions options;
  options.linear = options.table = GgmlType::kF32;
  options.blocks = &blocks;
  WriteGguf(model, ArchName::kQwen3, path_, options);
  const std::vector<int32_t> tokens = RandomTokens(5, model.config.vocab_size, 93);
  const std::vector<float> want = Logits(path_, tokens, 1);
  const Engine engine(engine::LoadModel(path_), 1);
  std::filesystem::remove(path_);
  EXPECT_EQ(Session(engine).Append(tokens, LogitsOf::kAll), want);
}

TEST_F(BlockFilesTest, WeightsOfOtherSizesAreABug) {
  TinyModel model = MakeTinyModel(TinyConfig(ArchName::kLlama, LinearKind::kDense), 94);
  const TinyBlocks blocks = MakeBlocks(GgmlType::kQ4_0, GgmlType::kQ4_0, &model, 95);
  GgufOptions options;
  options.linear = options.table = GgmlType::kF32;
  options.blocks = &blocks;
  WriteGguf(model, ArchName::kLlama, path_, options);
  const auto refused = [&](const std::function<void(BlockMatrix&)>& spoil, bool table) {
    ModelWeights weights = engine::LoadModel(path_);
    spoil(table ? std::get<BlockMatrix>(weights.embedding)
                : std::get<BlockMatrix>(weights.layers[1].q));
    EXPECT_THROW(Engine(std::move(weights), 1), BugError);
  };
  for (const bool table : {false, true}) {
    refused([](BlockMatrix& m) { m.bytes = m.bytes.first(m.bytes.size() - 1); }, table);
    refused([](BlockMatrix& m) { m.type = GgmlType::kQ4_1; }, table);
    refused([](BlockMatrix& m) { m.n -= 1; }, table);
    refused([](BlockMatrix& m) { m.k += 256; }, table);
    refused([](BlockMatrix& m) { m.paired_head_dim = 96; }, table);
    refused([](BlockMatrix& m) { m.paired_head_dim = -2; }, table);
  }
}

TEST_F(BlockFilesTest, ValuesOfATernaryMatrixAreABug) {
  EXPECT_THROW(engine::ValuesOf(engine::LinearMatrix(engine::TernaryMatrix{})), BugError);
}

}  // namespace
}  // namespace tern::testing
