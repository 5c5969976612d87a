// The comparison of a quantized model with its source: layer by layer it has the very figures of
// both models in memory, and another model is never taken for the same.
#include "ptq/check.h"

#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "tests/ptq/tiny_source.h"
#include "transfer/verify.h"

namespace tern::ptq {
namespace {

class CheckTest : public ::testing::Test {
 protected:
  CheckTest() { WriteTinySource(folder_); }

  std::string Quantized(const std::string& to, const std::string& name) {
    const QuantizeOptions options = TinyOptions(folder_, to, name);
    QuantizeModel(options);
    return options.output;
  }
  at::Tensor LogitsInMemory(const std::string& path) {
    const engine::Engine engine(engine::LoadModel(path), 1);
    const std::vector<float> logits =
        engine::Session(engine).Append(tokens_, engine::LogitsOf::kAll);
    const auto count = static_cast<int64_t>(tokens_.size());
    return at::from_blob(const_cast<float*>(logits.data()), {count, engine.config().vocab_size},
                         at::kFloat)
        .clone();
  }
  Divergence InMemory(const std::string& source, const std::string& output) {
    const at::Tensor ours_TV = LogitsInMemory(source), theirs_TV = LogitsInMemory(output);
    return {static_cast<int64_t>(tokens_.size()),
            transfer::KlOfRows(ours_TV, theirs_TV).mean().item<double>(),
            (ours_TV.argmax(1) == theirs_TV.argmax(1)).to(at::kDouble).mean().item<double>()};
  }

  testing::TempFolder folder_;
  std::vector<int32_t> tokens_ = testing::RandomTokens(70, 40, 9);
};

// Equal to the bit: a token's logits do not depend on the tokens that are computed beside it, and
// the pieces are whole blocks of KlOfRows.
TEST_F(CheckTest, HasTheFiguresOfModelsInMemory) {
  const std::string source = folder_ / "source";
  for (const char* to : {"int4", "w2", "fp8", "q4_0"}) {
    const std::string output = Quantized(to, std::string(to) == "q4_0" ? "q.gguf" : to);
    const Divergence want = InMemory(source, output);
    EXPECT_GT(want.mean_kl, 1e-5) << to;  // There is something to see
    EXPECT_LT(want.top1_agreement, 1) << to;
    for (const int64_t bytes : {int64_t{1}, kCheckLogitsBytes}) {  // Pieces of 16 tokens, and all
      const Divergence found = CompareWithSource(source, output, tokens_, 1, bytes);
      EXPECT_EQ(found.tokens, want.tokens);
      EXPECT_EQ(found.mean_kl, want.mean_kl) << to;
      EXPECT_EQ(found.top1_agreement, want.top1_agreement) << to;
    }
  }
}

TEST_F(CheckTest, SameModelIsZeroAndAnotherIsNot) {
  const std::string source = folder_ / "source";
  const Divergence same = CompareWithSource(source, source, tokens_, 1);
  EXPECT_EQ(same.mean_kl, 0);
  EXPECT_EQ(same.top1_agreement, 1);
  testing::WriteHfFolder(
      testing::MakeTinyModel(testing::TinyConfig(ArchName::kLlama, LinearKind::kDense), 4),
      folder_ / "other");
  const Divergence other = CompareWithSource(source, folder_ / "other", tokens_, 1);
  EXPECT_GT(other.mean_kl, 0.5);
  EXPECT_LT(other.top1_agreement, 0.5);
}

}  // namespace
}  // namespace tern::ptq
