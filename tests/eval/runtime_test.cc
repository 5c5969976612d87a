// Which runtime `tern eval` takes by itself, that reports name it, and that both give one result.
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "cli/commands.h"
#include "cli/eval_runtime.h"
#include "engine_cli/run_main.h"
#include "tests/engine/tiny_files.h"
#include "tests/engine/tiny_vocabulary.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

using nlohmann::json;

constexpr const char* kEngine = "engine";
constexpr const char* kTorch = "libtorch, fp32";

class EvalRuntimeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dense_ = Write("dense.gguf", LinearKind::kDense);
    ternary_ = Write("ternary.gguf", LinearKind::kBitLinear);
    std::string text;
    for (int i = 0; i < 40; ++i) text += "To be, or not to be " + std::to_string(i) + ". ";
    WriteFileAtomically(folder_ / "perplexity.txt", text);
    WriteFileAtomically(folder_ / "boolq.jsonl",
                        R"({"context":"To be","choices":["o","T"],"gold":1})"
                        "\n");
  }

  std::string Write(const std::string& name, LinearKind linear) {
    const text::PieceTable table = ByteVocabulary();
    ModelConfig config = TinyConfig(ArchName::kLlama, linear);
    config.vocab_size = static_cast<int64_t>(table.pieces.size());
    GgufOptions file;
    file.tokenizer = &table;
    if (linear == LinearKind::kDense) {
      file.linear = formats::GgmlType::kF32;
      file.activation.reset();
    }
    WriteGguf(MakeTinyModel(config, 52), ArchName::kLlama, folder_ / name, file);
    return folder_ / name;
  }

  json Eval(std::vector<std::string> args) {
    CLI::App app("test");
    app.require_subcommand(1);
    cli::AddEvalCommand(app);
    args.insert(args.begin(), {"tern", "eval"});
    args.insert(args.end(),
                {"--data", folder_ / "", "--context", "16", "--threads", "1", "--json"});
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    const int code = engine_cli::RunMain(app, static_cast<int>(argv.size()), argv.data());
    const std::string out = ::testing::internal::GetCapturedStdout();
    const std::string err = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(code, 0) << err;
    return code == 0 ? json::parse(out) : json();
  }

  TempFolder folder_;
  std::string dense_, ternary_;
};

TEST_F(EvalRuntimeTest, LongWindowsOfFloatsGoToLibtorchAllElseToTheEngine) {
  const json both = Eval({dense_, "--task", "perplexity,boolq"});
  EXPECT_EQ(both["tasks"][0]["runtime"], kTorch);
  EXPECT_EQ(both["tasks"][1]["runtime"], kEngine);
  EXPECT_EQ(both["activations"], "int16");
  const json windows = Eval({dense_, "--task", "perplexity"});
  EXPECT_FALSE(windows.contains("activations")) << "libtorch has none";
  EXPECT_EQ(Eval({ternary_, "--task", "perplexity"})["tasks"][0]["runtime"], kEngine);
  EXPECT_EQ(Eval({dense_, "--task", "perplexity", "--cache", "f32"})["tasks"][0]["runtime"],
            kEngine);
  EXPECT_EQ(Eval({dense_, "--task", "perplexity", "--activations", "f32"})["tasks"][0]["runtime"],
            kEngine);
  EXPECT_EQ(Eval({dense_, "--task", "boolq", "--runtime", "libtorch"})["tasks"][0]["runtime"],
            kTorch);
}

TEST_F(EvalRuntimeTest, BothRuntimesGiveOnePerplexity) {
  const json torch = Eval({dense_, "--task", "perplexity", "--runtime", "libtorch"});
  const json engine = Eval({dense_, "--task", "perplexity", "--runtime", "engine"});
  EXPECT_EQ(engine["tasks"][0]["runtime"], kEngine);
  const double ours = torch["tasks"][0]["metrics"][0]["value"];
  // fp32 on both sides: 1e-5 of the logits' rounding in two layers, which the mean does not add up.
  EXPECT_NEAR(engine["tasks"][0]["metrics"][0]["value"].get<double>() / ours, 1.0, 1e-5);
}

TEST_F(EvalRuntimeTest, ADivergenceNamesTheRuntimeOfEachModel) {
  const json report = Eval({ternary_, "--against", dense_});
  EXPECT_EQ(report["divergence"]["runtime"], kEngine);
  EXPECT_EQ(report["divergence"]["reference_runtime"], kTorch);
  const json same = Eval({dense_, "--against", dense_});
  EXPECT_EQ(same["divergence"]["metrics"][0]["value"], 0.0);
}

// Numbers of another runtime are others: a journal must not mix them.
TEST_F(EvalRuntimeTest, AResumedRunTakesNothingOfTheOtherRuntime) {
  const std::vector<std::string> call = {dense_, "--task", "perplexity", "-o",
                                         folder_ / "out.json"};
  const auto with = [&](std::vector<std::string> more) {
    std::vector<std::string> args = call;
    args.insert(args.end(), more.begin(), more.end());
    return Eval(args)["tasks"][0]["tokens_run"].get<int64_t>();
  };
  const int64_t all = with({"--runtime", "engine"});
  EXPECT_GT(all, 0);
  EXPECT_EQ(with({"--runtime", "engine", "--resume"}), 0);
  EXPECT_GT(with({"--runtime", "libtorch", "--resume"}), 0);
}

TEST(EvalRuntimeRuleTest, FitsAreThreeTimesTheParameters) {
  EXPECT_TRUE(cli::FitsInFp32(1'000'000'000, 12'000'000'000));
  EXPECT_FALSE(cli::FitsInFp32(1'000'000'001, 12'000'000'000));
}

}  // namespace
}  // namespace tern::testing
