// The quantize stage: tern quantize as a part of a recipe. Its output has the bytes of the command
// on the same model and the recipe's own training text; it goes on where it was stopped; and what
// cannot be done is refused before anything is made.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/subprocess.h"
#include "data/token_file.h"
#include "job/quantize_stage.h"
#include "ptq/calibration.h"
#include "ptq/quantize_model.h"
#include "recipe/list_visitor.h"
#include "tests/job/dense_run.h"

namespace tern::job {
namespace {

namespace fs = std::filesystem;

constexpr const char* kOptions =
    "{to: int4, group: 32, calibration_tokens: 320, sequence: 32, order: file, rounds: 1}";

// Of a model trained here.
std::string Trained(const std::string& options) {
  std::string yaml = kDenseRecipe;
  const size_t at = yaml.find("  - export");
  return yaml.substr(0, at) + "  - quantize: " + options + "\n  - verify: {tokens: 16}\n" +
         "  - report: {}\n";
}

// Of a model that is there.
std::string Given(const std::string& stages) {
  return "name: small\nmodel: {from: " + DenseModel() +
         "}\ndata: {files: [TEXTS/*.txt], validation_fraction: 0.2}\nstages:\n" + stages;
}

void RunStages(const SmallRun& run, const std::vector<std::string>& overrides = {},
               const std::string& restart_from = "") {
  RunRecipe(run.Load(overrides), {run.runs(), restart_from, ""});
}

std::map<std::string, std::string> BytesOf(const std::string& folder) {
  std::map<std::string, std::string> bytes;
  for (const auto& entry : fs::directory_iterator(folder))
    bytes[entry.path().filename().string()] = ReadFile(entry.path().string());
  return bytes;
}

// The command's options for what the stage of kOptions does.
ptq::QuantizeOptions CommandOptions(const SmallRun& run, const std::string& source,
                                    const std::string& output) {
  ptq::QuantizeOptions options;
  options.source = source;
  options.output = output;
  options.group = 32;
  options.calibration = run.Path("data.tokens.h5");  // Of which the command, too, reads the
                                                     // training side alone
  options.calibration_tokens = 320;
  options.sequence = 32;
  options.gptq.activation_order = false;
  options.gptq.rounds = 1;
  return options;
}

TEST(QuantizeStageTest, HasTheBytesOfTheCommand) {
  const SmallRun run(Trained(kOptions));
  RunStages(run);
  const nlohmann::json result = run.Result("quantize");
  const std::string path = run.Path("exports/small-int4");
  EXPECT_EQ(result["path"], path);
  EXPECT_EQ(result["calibration_tokens"], 320);
  EXPECT_EQ(result["matrices"], 14);
  const std::string beside = run.folder() / "command";
  ptq::QuantizeModel(CommandOptions(run, result["source"], beside));
  EXPECT_EQ(BytesOf(path), BytesOf(beside));
  const nlohmann::json verified = run.Result("verify")["quantized"][0];
  EXPECT_EQ(verified["matrices"], 14);
  EXPECT_EQ(verified["compared"], 14);
  EXPECT_EQ(verified["tokens"], 16);
  EXPECT_LT(verified["mean_kl"].get<double>(), 0.5);
  const nlohmann::json report = nlohmann::json::parse(ReadFile(run.Path("report.json")));
  EXPECT_EQ(report["stages"][1]["kind"], "quantize");
  EXPECT_EQ(report["stages"][1]["result"], result);
  EXPECT_NE(ReadFile(run.Path("report.md")).find("- quantize: int4"), std::string::npos);
}

// Neither the windows nor the held-out one are of documents that are held out for validation.
TEST(QuantizeStageTest, CalibratesOnTrainingTextAlone) {
  const SmallRun run(Trained(kOptions));
  RunStages(run);
  const data::TokenFile tokens = data::TokenFile::Open(run.Path("data.tokens.h5"));
  const ptq::Calibration found = ptq::ReadCalibration(tokens, 300, 32, 320);
  std::vector<int32_t> train(static_cast<size_t>(tokens.NumTokens(data::Split::kTrain)));
  tokens.Copy(data::Split::kTrain, 0, static_cast<int64_t>(train.size()), train.data());
  const auto is_there = [&](const std::vector<int32_t>& window) {
    return std::search(train.begin(), train.end(), window.begin(), window.end()) != train.end();
  };
  EXPECT_TRUE(is_there(found.held_out));
  for (int64_t b = 0; b < found.tokens_BT.size(0); ++b) {
    const int64_t* row = found.tokens_BT.const_data_ptr<int64_t>() + b * 32;
    EXPECT_TRUE(is_there(std::vector<int32_t>(row, row + 32))) << b;
  }
  const std::string file = run.Path("data.tokens.h5");
  EXPECT_EQ(found.sha256, ptq::ReadCalibration(file, "text", nullptr, 300, 32, 320).sha256);
}

// Without a training: model.from to a folder and a file, each stage under its own name; the text
// is written by the last one.
TEST(QuantizeStageTest, QuantizesAModelThatIsThere) {
  const SmallRun run(
      Given("  - quantize: {id: eight, to: int8, calibration: none}\n"
            "  - quantize: {to: q8_0, calibration: none}\n"
            "  - verify: {tokens: 16}\n  - generate: {prompt: the, tokens: 4}\n"));
  RunStages(run);
  EXPECT_TRUE(fs::exists(run.Path("exports/small-eight/model.safetensors")));
  EXPECT_TRUE(fs::exists(run.Path("exports/small-q8_0.gguf")));
  EXPECT_EQ(run.Result("eight")["calibration_tokens"], 0);
  EXPECT_EQ(run.Result("verify")["quantized"].size(), 2u);
  EXPECT_EQ(run.Result("generate")["model"], run.Path("exports/small-q8_0.gguf"));
}

TEST(QuantizeStageTest, ASizeGivesAPlan) {
  const SmallRun run(Given("  - quantize: {to_bits: 9, calibration_tokens: 320, sequence: 32}\n"));
  RunStages(run);
  const nlohmann::json result = run.Result("quantize");
  EXPECT_LE(result["size_bytes"].get<int64_t>(),
            static_cast<int64_t>(fs::file_size(run.Path("exports/small-mixed.gguf"))));
  EXPECT_FALSE(result["plan"]["front"].empty());
}

// A work folder as a killed run leaves it, with one layer whose ledger tells that it is not made
// again.
TEST(QuantizeStageTest, GoesOnWithTheFirstLayerThatIsNotDone) {
  const SmallRun run(Given(StrCat("  - quantize: ", kOptions, "\n")));
  RunStages(run);
  const std::string path = run.Path("exports/small-int4"), partial = path + ".partial";
  const auto whole = BytesOf(path);
  fs::remove_all(path);
  fs::remove(run.Path("stages/quantize.json"));
  ptq::QuantizeOptions options = CommandOptions(run, DenseModel(), path);
  options.progress = [](int64_t done, int64_t) {
    if (done == 1) throw StoppedError("here");
  };
  EXPECT_THROW(ptq::QuantizeModel(options), StoppedError);
  ASSERT_TRUE(fs::exists(partial + "/layer-00000.safetensors"));
  const std::string ledger = partial + "/ledger-00000.json";
  std::string lines = ReadFile(ledger);
  lines.replace(lines.find("\"dead_columns\":0"), 16, "\"dead_columns\":7");
  WriteFileAtomically(ledger, lines);
  RunStages(run);
  EXPECT_FALSE(fs::exists(partial));
  auto found = BytesOf(path), wanted = whole;
  EXPECT_NE(found.at("ledger.jsonl").find("\"dead_columns\":7"), std::string::npos);
  found.erase("ledger.jsonl");
  wanted.erase("ledger.jsonl");
  EXPECT_EQ(found, wanted);
}

// Work that was begun with other keys is the run's own, and begun again.
TEST(QuantizeStageTest, UnfinishedWorkOfOtherKeysIsBegunAgain) {
  const SmallRun run(Given(StrCat("  - quantize: ", kOptions, "\n")));
  RunStages(run);
  const std::string path = run.Path("exports/small-int4");
  const auto whole = BytesOf(path);
  fs::remove_all(path);
  fs::remove(run.Path("stages/quantize.json"));
  ptq::QuantizeOptions options = CommandOptions(run, DenseModel(), path);
  options.gptq.rounds = 2;
  options.progress = [](int64_t done, int64_t) {
    if (done == 1) throw StoppedError("here");
  };
  EXPECT_THROW(ptq::QuantizeModel(options), StoppedError);
  RunStages(run);
  EXPECT_EQ(BytesOf(path), whole);
}

// A change of keys is an error that names them; --restart-from makes the stage again. What other
// stages have exported stays.
TEST(QuantizeStageTest, RestartsAlone) {
  const SmallRun run(Trained(kOptions) + "  - export: {formats: [hf/f32]}\n");
  RunStages(run);
  const auto whole = BytesOf(run.Path("exports/small-int4"));
  try {
    RunStages(run, {"quantize.damping=0.02"});
    ADD_FAILURE() << "not refused";
  } catch (const RecipeError& error) {
    EXPECT_NE(std::string(error.what()).find("quantize.damping: was 0.01, now 0.02"),
              std::string::npos)
        << error.what();
  }
  RunStages(run, {}, "export");
  EXPECT_EQ(BytesOf(run.Path("exports/small-int4")), whole);
  RunStages(run, {"quantize.damping=0.02"}, "quantize");
  EXPECT_NE(BytesOf(run.Path("exports/small-int4")), whole);
  EXPECT_TRUE(fs::exists(run.Path("exports/small-hf-f32")));
}

struct Refusal {
  std::string yaml;
  std::vector<std::string> overrides;
  const char* words;
};

TEST(QuantizeStageTest, RefusesBeforeAnythingIsMade) {
  const std::string quantize = Given("  - quantize: {calibration: none}\n");
  std::string ternary = kSmallRecipe;
  ternary.replace(ternary.find("  - eval"), 0, "  - quantize: {}\n");
  std::string nothing = kDenseRecipe;
  nothing.replace(nothing.find("  - train"), 0, "  - quantize: {}\n");
  for (const Refusal& r : std::vector<Refusal>{
           {quantize, {"quantize.to=int5"}, "quantize: --to int5; want one of int4"},
           {quantize, {"quantize.group=48"}, "48"},
           {quantize, {"quantize.method=gptq"}, "--method gptq needs --calibration"},
           {quantize, {"quantize.method=hope"}, "--method hope"},
           {quantize, {"quantize.to=int8", "quantize.container=awq"}, "--container awq"},
           {quantize, {"quantize.to=fp8_static"}, "needs --calibration"},
           {quantize, {"quantize.to_bits=4.5"}, "need --calibration"},
           {quantize, {"quantize.to_bits=4.5", "quantize.to_size=1MB"}, "one of the two"},
           {quantize, {"quantize.to_bits=4.5", "quantize.to=int8"}, "quantize.to: found int8"},
           {quantize, {"quantize.to_size=big"}, "a size of 'big'"},
           {quantize, {"quantize.rounds=21"}, "from 0 to 20"},
           {quantize, {"quantize.checkpoint=first"}, "last | best"},
           {ternary, {}, "quantize.to: what train trains is ternary already"},
           {Trained("{}"),
            {"train.quantize.rules={body: {weights: int4, group: 32}}"},
            "quantized by its rules"},
           {nothing, {}, "quantize needs a train stage before it"}}) {
    const SmallRun run(r.yaml);
    try {
      RunStages(run, r.overrides);
      ADD_FAILURE() << "not refused: wanted " << r.words;
    } catch (const RecipeError& error) {
      EXPECT_NE(std::string(error.what()).find(r.words), std::string::npos)
          << error.what() << "\n  lacks " << r.words;
    }
    EXPECT_FALSE(fs::exists(run.runs())) << r.words;
  }
}

// Each key of the stage is an option of the command under its name, and the other way round, but
// for what only one of them can have.
TEST(QuantizeStageTest, KeysAreTheOptionsOfTheCommand) {
  const std::string help = RunProgram({TERN_BINARY, "quantize", "--help"});
  std::string options;
  for (const recipe::ListedField& field : recipe::ListStage(recipe::QuantizeStage{})) {
    std::string name = field.path.substr(field.path.find('.') + 1);
    if (name == "id" || name == "checkpoint") continue;
    std::replace(name.begin(), name.end(), '_', '-');
    options += " --" + name + " ";
    EXPECT_NE(help.find("--" + name + " "), std::string::npos) << "no option --" << name;
  }
  for (size_t at = 0; (at = help.find("  --", at)) != std::string::npos; ++at) {
    const std::string name = help.substr(at + 2, help.find_first_of(" ,:\n=", at + 2) - at - 2);
    static const std::string kCommandAlone =
        " --for --front --plot --tokenizer --threads --json --output --help ";
    EXPECT_NE((options + kCommandAlone).find(" " + name + " "), std::string::npos)
        << "no key for " << name;
  }
}

}  // namespace
}  // namespace tern::job
