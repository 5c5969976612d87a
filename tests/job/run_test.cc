// A recipe from text to verified files, what is made of it a second time, and what is refused.
#include "job/run.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/stop_signal.h"
#include "data/mapped_tokens.h"
#include "metrics/metrics_log.h"
#include "tests/job/small_run.h"
#include "text/train_tokenizer.h"

namespace tern::job {
namespace {

namespace fs = std::filesystem;

class RunTest : public ::testing::Test {
 protected:
  RunTest() { ClearStopRequest(); }

  void Run(const std::vector<std::string>& overrides = {}, const std::string& restart_from = "") {
    const recipe::LoadedRecipe loaded = run_.Load(overrides);
    RunRecipe(loaded, {run_.runs(), restart_from, ""});
  }
  nlohmann::json Stage(const std::string& id) const {
    return nlohmann::json::parse(ReadFile(run_.Path("stages/" + id + ".json")));
  }
  int64_t JournalLines() const {
    const std::string journal = ReadFile(run_.Path("journal.jsonl"));
    return std::count(journal.begin(), journal.end(), '\n');
  }
  // The message of the error of a run, which must be an E.
  template <class E>
  std::string Refused(const std::vector<std::string>& overrides) {
    try {
      Run(overrides);
    } catch (const E& error) {
      return error.what();
    }
    ADD_FAILURE() << "not refused";
    return "";
  }

  SmallRun run_;
};

TEST_F(RunTest, GoesFromTextToVerifiedFiles) {
  Run();
  for (const char* id : {"prepare", "train", "eval", "export", "verify", "generate", "report"})
    EXPECT_EQ(Stage(id)["status"], "done") << id;
  EXPECT_LT(Stage("eval")["result"]["perplexity"].get<double>(), 300.0);  // Of 300 pieces
  EXPECT_EQ(Stage("verify")["result"]["files"].size(), 3u);
  for (const auto& file : Stage("verify")["result"]["files"]) {
    EXPECT_EQ(file["ternary_weights"], 256 * 256 * 6 - 2 * 256 * 128) << file;
    EXPECT_EQ(file["tokens"], 16);
  }
  for (const char* name : {"exports/small-tq2_0.gguf", "exports/small-i2_s.gguf",
                           "exports/small-hf-bitnet/model.safetensors", "report.md"})
    EXPECT_TRUE(fs::exists(run_.Path(name))) << name;
  const std::string metrics = ReadFile(run_.Path("metrics.jsonl"));
  EXPECT_EQ(std::count(metrics.begin(), metrics.end(), '\n'), 24);
}

// Records and Megatron ids, mixed. How the text is cut into shards has no say in the training.
TEST_F(RunTest, MixedSourcesGoFromRecordsToVerifiedFiles) {
  const std::string folder = run_.folder().path() + "/";
  const std::string text = MadeUpText(1, 30'000);
  const text::Tokenizer tokenizer = text::TrainTokenizer({text}, {300});
  tokenizer.Save(folder + "t.model");
  std::ofstream records(folder + "web.jsonl");
  for (int i = 0; i < 60; ++i)
    records << nlohmann::json{{"text", MadeUpText(static_cast<uint64_t>(i), 400)}}.dump() << "\n";
  records.close();
  data::MegatronWriter ids(folder + "ids", tokenizer.vocab_size());
  const std::vector<int32_t> encoded = tokenizer.Encode(text);
  ids.AddDocument(encoded.data(), static_cast<int64_t>(encoded.size()));
  ids.Commit();
  const std::vector<std::string> sources = {
      "data.files=[]", StrCat("data.tokenizer.file=", folder, "t.model"),
      StrCat("data.sources={web: {files: [", folder, "web.jsonl], weight: 3}, ids: {files: [",
             folder, "ids.idx]}}")};
  Run(sources);
  EXPECT_EQ(Stage("verify")["status"], "done");
  const nlohmann::json prepared = Stage("prepare")["result"],
                       loss = Stage("train")["result"]["loss"];
  EXPECT_EQ(prepared["sources"]["web"]["shards"], 1);
  EXPECT_EQ(prepared["sources"]["ids"]["kind"], "megatron");
  EXPECT_EQ(prepared["sources"]["web"]["train_documents"].get<int64_t>() +
                prepared["sources"]["web"]["validation_documents"].get<int64_t>(),
            60);
  EXPECT_GT(prepared["validation_tokens"], 100);
  std::vector<std::string> cut = sources;
  cut.insert(cut.end(), {"data.shard_tokens=500", StrCat("data.shards=", folder, "shards")});
  Run(cut, "prepare");
  EXPECT_GT(Stage("prepare")["result"]["sources"]["web"]["shards"], 5);
  EXPECT_TRUE(fs::exists(folder + "shards/web/manifest.json"));
  EXPECT_EQ(Stage("train")["result"]["loss"], loss);
  EXPECT_NE(Refused<RecipeError>({sources[0], sources[1], sources[2], "data.shard_tokens=500",
                                  "data.sources.web.weight=4"})
                .find("data.sources.web.weight"),
            std::string::npos);
}

TEST_F(RunTest, ADoneRunIsNotMadeAgain) {
  Run();
  const int64_t lines = JournalLines();
  const std::string report = ReadFile(run_.Path("report.md"));
  Run();
  EXPECT_EQ(JournalLines(), lines);
  EXPECT_EQ(ReadFile(run_.Path("report.md")), report);
}

TEST_F(RunTest, OtherKeysAreRefusedByName) {
  Run();
  const std::string message = Refused<RecipeError>({"train.schedule.peak_lr=1.9e-3"});
  EXPECT_NE(message.find("train.schedule.peak_lr"), std::string::npos) << message;
  EXPECT_NE(message.find("--restart-from train"), std::string::npos) << message;
  EXPECT_NE(Refused<RecipeError>({"seed=7"}).find("seed"), std::string::npos);
  Run({"train.schedule.peak_lr=1.9e-3"}, "train");
  EXPECT_EQ(Stage("report")["status"], "done");
}

TEST_F(RunTest, MoreStepsGoOnAndWhatFollowsIsMadeAgain) {
  Run();
  const auto before = Stage("export")["result"];
  Run({"train.steps=27"});
  EXPECT_EQ(Stage("train")["result"]["steps"], 27);
  EXPECT_TRUE(fs::exists(run_.Path("train/step-00000027/manifest.json")));
  EXPECT_GT(JournalLines(), 0);
}

TEST_F(RunTest, TwoProcessesOnOneFolder) {
  fs::create_directories(run_.Path(""));
  const FileLock held(run_.Path("lock"));
  EXPECT_NE(Refused<ResourceError>({}).find("lock"), std::string::npos);
}

TEST_F(RunTest, FoldersThatCannotBeWritten) {
  std::ofstream(run_.runs()) << "a file where the folder of runs should be";
  EXPECT_NE(Refused<ResourceError>({}).find(run_.runs()), std::string::npos);
}

TEST_F(RunTest, TextsThatCannotBeTrainedOn) {
  EXPECT_NE(Refused<InputError>({"data.files=[/nowhere/*.txt]"}).find("/nowhere/*.txt"),
            std::string::npos);
  run_.AddText("empty", "");
  EXPECT_NE(Refused<InputError>({}).find("empty.txt"), std::string::npos);
  run_.AddText("empty", std::string("ab\0cd", 5));
  EXPECT_NE(Refused<InputError>({}).find("byte 2"), std::string::npos);
  run_.AddText("empty", "ab\ncd\xff");
  EXPECT_NE(Refused<InputError>({}).find("byte 5 (line 2)"), std::string::npos);
}

TEST_F(RunTest, SizesThatDoNotFitTheText) {
  const std::string vocabulary = Refused<InputError>({"data.tokenizer.vocab_size=60000"});
  EXPECT_NE(vocabulary.find("vocab"), std::string::npos) << vocabulary;
  const std::string length = Refused<InputError>(
      {"model.context_length=1048576", "train.sequence_length=1048576",
       "train.tokens_per_step=1048576", "train.activation_checkpointing=block"});
  EXPECT_NE(length.find("sequence_length"), std::string::npos) << length;
  EXPECT_NE(Refused<RecipeError>({"train.steps=0"}).find("train.steps"), std::string::npos);
  EXPECT_NE(Refused<RecipeError>({"budget.memory_gib=0.001"}).find("budget.memory_gib"),
            std::string::npos);
}

TEST_F(RunTest, AStageThatMadeNothingMayBeCorrected) {
  Refused<InputError>({"data.tokenizer.vocab_size=60000"});
  Run();
  EXPECT_EQ(Stage("prepare")["result"]["vocab_size"], 300);
}

TEST_F(RunTest, FilesOfAnotherRunAreRefused) {
  Run({"name=other", "data.tokenizer.vocab_size=301"});
  Run();
  const std::string other = run_.runs() + "/other/";
  fs::copy_file(other + "tokenizer.model", run_.Path("tokenizer.model"),
                fs::copy_options::overwrite_existing);
  EXPECT_NE(Refused<FormatError>({"train.steps=25"}).find("tokenizer"), std::string::npos);
}

TEST_F(RunTest, AnExportWithAnotherTokenizerIsNotVerified) {
  Run();
  const std::string path = run_.Path("exports/small-tq2_0.gguf");
  std::string bytes = ReadFile(path);
  const size_t piece = bytes.find("<0x41>");
  ASSERT_NE(piece, std::string::npos);
  bytes.replace(piece, 6, "<0x4A>").replace(bytes.find("<0x4A>", piece + 6), 6, "<0x41>");
  WriteFileAtomically(path, bytes);
  fs::remove(run_.Path("stages/verify.json"));
  EXPECT_NE(Refused<NumericError>({}).find("<0x4A>"), std::string::npos);
}

TEST_F(RunTest, MissedExpectationsAreAnErrorAfterAllStages) {
  const std::string message = Refused<NumericError>({"expect.validation_perplexity_below=1.5"});
  EXPECT_NE(message.find("1.5"), std::string::npos) << message;
  EXPECT_EQ(Stage("report")["status"], "done");
}

// Stages between two trainings are of the first.
TEST_F(RunTest, StagesBetweenTrainingsAreOfTheOneBefore) {
  std::string yaml = kSmallRecipe;
  yaml.resize(yaml.find("  - eval"));
  yaml += R"(  - eval: {id: between, perplexity: {split: validation, tokens: 512}}
  - export: {id: early, formats: [gguf/tq2_0]}
  - verify: {id: check, tokens: 16}
  - train: {id: second, steps: 3, tokens_per_step: 128, sequence_length: 32, schedule: {peak_lr: 1.0e-3},
            eval_tokens: 512}
  - eval: {perplexity: {split: validation, tokens: 512}}
)";
  const SmallRun run(yaml);
  RunRecipe(run.Load({"train.eval_tokens=512"}), {run.runs(), "", ""});
  const auto result = [&](const std::string& id) { return run.Result(id); };
  EXPECT_NEAR(result("between")["loss"].get<double>(),
              result("train")["validation_loss"].get<double>(), 1e-5);
  EXPECT_NE(result("early")["checkpoint"].get<std::string>().find("/train/"), std::string::npos);
  EXPECT_NEAR(result("eval")["loss"].get<double>(),
              result("second")["validation_loss"].get<double>(), 1e-5);
  EXPECT_NE(result("between")["loss"], result("eval")["loss"]);
}

// A longer first training would leave the second one's result of another model.
TEST_F(RunTest, AnEarlierTrainingGrowsOnlyWithThoseAfterIt) {
  std::string yaml = kSmallRecipe;
  yaml.resize(yaml.find("  - eval"));
  yaml +=
      "  - train: {id: second, steps: 3, tokens_per_step: 128, sequence_length: 32, eval_tokens: 0,"
      " eval_every: 0, schedule: {peak_lr: 1.0e-3}}\n";
  const SmallRun run(yaml);
  const auto loss = [](const SmallRun& of) {
    return nlohmann::json::parse(ReadFile(of.Path("stages/second.json")))["result"]["loss"];
  };
  const RunOptions plain{run.runs(), "", ""};
  RunRecipe(run.Load({"train.steps=20"}), plain);
  const nlohmann::json before = loss(run);
  try {
    RunRecipe(run.Load({"train.steps=24"}), plain);
    ADD_FAILURE() << "not refused";
  } catch (const RecipeError& error) {
    EXPECT_NE(std::string(error.what()).find("--restart-from second"), std::string::npos)
        << error.what();
  }
  RunRecipe(run.Load({"train.steps=24"}), {run.runs(), "second", ""});
  EXPECT_NE(loss(run), before);
}

TEST_F(RunTest, LostAndCutExportsAreMadeAgain) {
  Run();
  const std::string lost = run_.Path("exports/small-tq2_0.gguf"),
                    cut = run_.Path("exports/small-hf-bitnet/model.safetensors");
  const std::string before = ReadFile(lost), folder = ReadFile(cut);
  fs::remove(lost);
  Run();
  EXPECT_EQ(ReadFile(lost), before);
  fs::resize_file(cut, 100);
  Run();
  EXPECT_EQ(ReadFile(cut), folder);
}

TEST_F(RunTest, EightBitTablesAreVerifiedByTheirType) {
  Run({"export.embedding=q8_0", "export.formats=[gguf/tq2_0]"});
  EXPECT_EQ(Stage("verify")["status"], "done");
}

// Records of versions that did not count tensors.
TEST_F(RunTest, AReportGoesWithoutWhatItsRecordsLack) {
  Run();
  nlohmann::json record = Stage("train");
  for (const char* key : {"peak_tensor_bytes", "predicted_tensor_bytes"})
    EXPECT_EQ(record["result"].erase(key), 1U);
  std::ofstream(run_.Path("stages/train.json")) << record;
  Run({}, "report");
  const std::string report = ReadFile(run_.Path("report.md"));
  EXPECT_NE(report.find("peak memory"), std::string::npos) << report;
  EXPECT_EQ(report.find("of it tensors"), std::string::npos) << report;
}

TEST_F(RunTest, ADamagedStageRecordIsNamed) {
  Run();
  std::ofstream(run_.Path("stages/eval.json")) << "{\"status\": \"do";
  EXPECT_NE(Refused<FormatError>({}).find("eval.json"), std::string::npos);
}

}  // namespace
}  // namespace tern::job
