// The verbs of tern-engine, run in this process: exit codes, one line of error on stderr, nothing
// but the result on stdout, and help with an example for each.
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "data/corpus.h"
#include "data/token_file.h"
#include "engine/engine.h"
#include "engine/model_file.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "engine_cli/commands.h"
#include "engine_cli/run_main.h"
#include "tests/engine/scaled_folder.h"
#include "tests/engine/tiny_files.h"
#include "tests/engine/tiny_vocabulary.h"
#include "tests/testing/hdf5_leaks.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

void AddVerbs(CLI::App& app) {
  app.require_subcommand(1);
  app.set_version_flag("--version", TERN_VERSION);
  engine_cli::AddGenerateCommand(app);
  engine_cli::AddLogitsCommand(app);
  engine_cli::AddTokenizerCommand(app);
  engine_cli::AddInspectCommand(app);
  engine_cli::AddDoctorCommand(app);
  engine_cli::AddBenchCommand(app);
}

struct Outcome {
  int code;
  std::string out, err;
};

Outcome Call(std::vector<std::string> args) {
  CLI::App app("test");
  AddVerbs(app);
  args.insert(args.begin(), "tern-engine");
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  Outcome outcome{engine_cli::RunMain(app, static_cast<int>(argv.size()), argv.data()), "", ""};
  outcome.out = ::testing::internal::GetCapturedStdout();
  outcome.err = ::testing::internal::GetCapturedStderr();
  return outcome;
}

// The last line of stderr is the error; messages of the log may come before it.
void ExpectError(const std::vector<std::string>& args, ExitCode code, const std::string& part) {
  const Outcome outcome = Call(args);
  SCOPED_TRACE(outcome.err);
  EXPECT_EQ(outcome.code, static_cast<int>(code));
  EXPECT_EQ(outcome.out, "");
  const size_t at = outcome.err.rfind("error: ");
  ASSERT_NE(at, std::string::npos);
  EXPECT_NE(outcome.err.find(part, at), std::string::npos) << "wanted: " << part;
  EXPECT_EQ(outcome.err.find('\n', at), outcome.err.size() - 1) << "want one line";
}

class CliTest : public ::testing::Test {
 protected:
  CliTest() {
    const text::PieceTable table = ByteVocabulary();
    ModelConfig config = TinyConfig(ArchName::kLlama);
    config.vocab_size = static_cast<int64_t>(table.pieces.size());
    model_ = MakeTinyModel(config, 61);
    GgufOptions options;
    options.tokenizer = &table;
    WriteGguf(model_, ArchName::kLlama, gguf_, options);
    WriteFileAtomically(damaged_, ReadFile(gguf_).substr(0, 1000));
    WriteFileAtomically(folder_ / "ids.txt", "1 5\n7\t2\n");
  }

  TempFolder folder_;
  TinyModel model_;
  std::string gguf_ = folder_ / "model.gguf", damaged_ = folder_ / "damaged.gguf";
};

TEST_F(CliTest, WrongCallsAreExitCode2) {
  ExpectError({}, ExitCode::kUsage, "subcommand");
  ExpectError({"fly"}, ExitCode::kUsage, "");
  ExpectError({"generate"}, ExitCode::kUsage, "required");
  ExpectError({"generate", gguf_}, ExitCode::kUsage, "--prompt");
  ExpectError({"generate", gguf_, "-p", "a", "--wings"}, ExitCode::kUsage, "--wings");
  ExpectError({"generate", gguf_, "-p", "a", "-n", "many"}, ExitCode::kUsage, "many");
  ExpectError({"generate", gguf_, "-p", "a", "--temperature", "-1"}, ExitCode::kUsage,
              "temperature");
  ExpectError({"generate", gguf_, "-p", "a", "--temperature", "1", "--top-p", "2"},
              ExitCode::kUsage, "top-p");
  ExpectError({"generate", gguf_, "-p", "a", "--min-p", "nan"}, ExitCode::kUsage, "min-p");
  ExpectError({"generate", gguf_, "-p", "a", "--repeat-penalty", "0"}, ExitCode::kUsage, "penalty");
  ExpectError({"generate", gguf_, "-p", "a", "--repeat-last-n", "-2"}, ExitCode::kUsage, "-2");
  ExpectError({"generate", gguf_, "-p", "a", "--stop", ""}, ExitCode::kUsage, "stop string");
  ExpectError({"logits", gguf_}, ExitCode::kUsage, "--tokens");
  ExpectError({"generate", gguf_, "-p", "a", "--activations", "int4"}, ExitCode::kUsage, "int4");
  ExpectError({"generate", gguf_, "-p", "a", "--activations", "int8", "--device", "simt"},
              ExitCode::kUsage, "--activations is for --device cpu, not simt");
  ExpectError({"inspect"}, ExitCode::kUsage, "file");
  ExpectError({"tokenizer"}, ExitCode::kUsage, "subcommand");
}

TEST_F(CliTest, ChatWritesMessagesThroughATemplate) {
  const std::string path = folder_ / "chat.jinja";
  WriteFileAtomically(path, "{{ bos_token }}{{ messages[0].role }}: {{ messages[0].content }}");
  const Outcome chat = Call({"tokenizer", "chat", path, "--text", "To be?", "--bos-token", "<s>"});
  EXPECT_EQ(chat.code, 0) << chat.err;
  EXPECT_EQ(chat.out, "<s>user: To be?");
  ExpectError({"tokenizer", "chat", gguf_, "--text", "a"}, ExitCode::kInput, "no chat template");
  WriteFileAtomically(path, "{% if %}");
  ExpectError({"tokenizer", "chat", path, "--text", "a"}, ExitCode::kInput, "line 1");
}

TEST_F(CliTest, MissingAndDamagedFilesAreExitCode3) {
  const std::string ids = folder_ / "ids.txt", out = folder_ / "logits.f32";
  for (const std::string& path : {folder_ / "nowhere.gguf", damaged_}) {
    ExpectError({"generate", path, "-p", "a"}, ExitCode::kInput, path);
    ExpectError({"logits", path, "--tokens", ids, "-o", out}, ExitCode::kInput, path);
    ExpectError({"inspect", path}, ExitCode::kInput, path);
    ExpectError({"inspect", path, "--json"}, ExitCode::kInput, path);
    ExpectError({"tokenizer", "encode", path, "--text", "a"}, ExitCode::kInput, path);
    ExpectError({"tokenizer", "decode", path, "--ids", "5"}, ExitCode::kInput, path);
  }
  EXPECT_FALSE(std::filesystem::exists(out));
  std::filesystem::create_directory(folder_ / "step-00000001");
  WriteFileAtomically(folder_ / "step-00000001/manifest.json", "{}");
  ExpectError({"generate", folder_ / "step-00000001", "-p", "a"}, ExitCode::kInput, "tern export");
  ExpectError({"logits", gguf_, "--tokens", folder_ / "nowhere.txt", "-o", out}, ExitCode::kInput,
              "nowhere.txt");
  ExpectError({"tokenizer", "train", folder_ / "nowhere.txt", "-o", folder_ / "t.model"},
              ExitCode::kInput, "nowhere.txt");
}

TEST_F(CliTest, AFolderThatCannotBeWrittenIsExitCode5) {
  ExpectError({"logits", gguf_, "--tokens", folder_ / "ids.txt", "-o", folder_ / "no/where.f32"},
              ExitCode::kResource, "no/where.f32");
}

TEST_F(CliTest, DevicesThatAreNotThere) {
  const std::vector<std::string> call = {"generate", gguf_, "-p", "a", "--device"};
  const auto on = [&](const std::string& device) {
    std::vector<std::string> args = call;
    args.push_back(device);
    return args;
  };
  ExpectError(on("gpu"), ExitCode::kUsage, "gpu");
  ExpectError(on("cuda:x"), ExitCode::kUsage, "cuda:x");
  const Outcome cuda = Call(on("cuda:99"));  // No machine has it, with or without GPUs.
  EXPECT_EQ(cuda.code, static_cast<int>(ExitCode::kResource));
  EXPECT_EQ(cuda.out, "");
  EXPECT_NE(cuda.err.find("error: device cuda"), std::string::npos) << cuda.err;
}

#if defined(TERN_HAVE_SIMT)
TEST_F(CliTest, TheEmulatorWritesWhatTheCpuWrites) {
  const auto text = [&](const std::string& device) {
    return Call({"generate", gguf_, "-p", "a", "-n", "3", "--device", device}).out;
  };
  EXPECT_EQ(text("simt"), text("cpu"));
  EXPECT_EQ(Call({"logits", gguf_, "--tokens", folder_ / "ids.txt", "-o", folder_ / "l.f32",
                  "--device", "simt"})
                .code,
            0);
  EXPECT_EQ(std::filesystem::file_size(folder_ / "l.f32"),
            4 * sizeof(float) * static_cast<size_t>(model_.config.vocab_size));
  ExpectError({"generate", gguf_, "-p", "a", "--device", "simt", "--cache", "f32"},
              ExitCode::kUsage, "a device keeps keys and values in fp16 or int8, not fp32");
}
#endif

// Every verb, those of `tokenizer` too.
void ExpectHelp(std::vector<std::string> words, const CLI::App* app) {
  for (const CLI::App* verb : app->get_subcommands({})) {
    std::vector<std::string> args = words;
    args.push_back(verb->get_name());
    const bool group = !verb->get_subcommands({}).empty();
    if (group) ExpectHelp(args, verb);
    args.push_back("--help");
    const Outcome outcome = Call(args);
    EXPECT_EQ(outcome.code, 0) << verb->get_name();
    EXPECT_EQ(outcome.err, "") << verb->get_name();
    if (!group) {
      EXPECT_NE(outcome.out.find("Example"), std::string::npos) << outcome.out;
    }
  }
}

TEST_F(CliTest, EveryVerbHasHelpWithAnExample) {
  CLI::App app;
  AddVerbs(app);
  ExpectHelp({}, &app);
  EXPECT_EQ(Call({"--help"}).code, 0);
  const Outcome version = Call({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_EQ(version.out, TERN_VERSION "\n");
}

TEST_F(CliTest, GenerateStreamsPromptAndText) {
  const std::vector<std::string> args = {"generate", gguf_, "-p",        "To be",
                                         "-n",       "8",   "--threads", "1"};
  const Outcome text = Call(args);
  EXPECT_EQ(text.code, 0);
  EXPECT_TRUE(text.out.starts_with("To be")) << text.out;
  EXPECT_NE(text.err.find("tokens/s"), std::string::npos) << text.err;
  std::vector<std::string> with_json = args;
  with_json.push_back("--json");
  const auto json = nlohmann::json::parse(Call(with_json).out);
  EXPECT_EQ(json["prompt"], "To be");
  EXPECT_LE(json["new_tokens"].get<int>(), 8);
  EXPECT_EQ("To be" + json["text"].get<std::string>() + "\n", text.out);
}

TEST_F(CliTest, GenerateStopsAtStopStrings) {
  std::vector<std::string> args = {"generate", "--json", "-p", "To be", "-n", "8"};
  args.push_back(gguf_);
  const std::string text = nlohmann::json::parse(Call(args).out)["text"];
  ASSERT_GT(text.size(), 2u);
  // One value each: the model's path after it is none.
  args.insert(args.begin() + 1, {"--stop", "no such", "--stop", text.substr(0, text.size() - 1)});
  args.insert(args.begin() + 1, {"--stop", text});
  const Outcome stopped = Call(args);
  ASSERT_EQ(stopped.code, 0) << stopped.err;
  const auto json = nlohmann::json::parse(stopped.out);
  EXPECT_EQ(json["text"], "");
  EXPECT_EQ(json["end"], "stop_string");
}

TEST_F(CliTest, LogitsAreThoseOfTheEngine) {
  const std::string out = folder_ / "logits.f32";
  ASSERT_EQ(Call({"logits", gguf_, "--tokens", folder_ / "ids.txt", "-o", out}).code, 0);
  const engine::Engine engine(engine::LoadModel(gguf_), 1);
  const std::vector<float> want =
      engine::Session(engine).Append(std::vector<int32_t>{1, 5, 7, 2}, engine::LogitsOf::kAll);
  const std::string bytes = ReadFile(out);
  ASSERT_EQ(bytes.size(), want.size() * sizeof(float));
  EXPECT_EQ(std::memcmp(bytes.data(), want.data(), bytes.size()), 0);
}

TEST_F(CliTest, LogitsOfOtherActivations) {
  const std::string path = folder_ / "q8.gguf", out = folder_ / "logits.f32";
  GgufOptions options;
  options.table = formats::GgmlType::kQ8_0;
  WriteGguf(model_, ArchName::kLlama, path, options);
  const auto logits = [&](const std::string& activations) {
    const std::string ids = folder_ / "ids.txt";
    EXPECT_EQ(Call({"logits", path, "--tokens", ids, "-o", out, "--activations", activations}).code,
              0);
    return ReadFile(out);
  };
  EXPECT_EQ(logits("f32"), logits("int16"));  // Q8_0
  EXPECT_NE(logits("int8"), logits("int16"));
}

#if defined(TERN_HAVE_SIMT)
// With a cache of the same type, few tokens have the CPU's bits on a device.
TEST_F(CliTest, FolderActivationsOnADevice) {
  ScaledFolder scaled(ScaledKind{"", "fp8", "channel", 1, 0});
  scaled.folder.config["quantization_config"]["config_groups"]["group_0"]["input_activations"] = {
      {"num_bits", 8}, {"type", "float"}, {"strategy", "token"}, {"dynamic", true}};
  scaled.folder.Write(folder_ / "fp8");
  const std::string out = folder_ / "logits.f32";
  const auto logits = [&](const std::string& device, const std::string& activations) {
    const Outcome outcome =
        Call({"logits", folder_ / "fp8", "--tokens", folder_ / "ids.txt", "-o", out, "--cache",
              "f16", "--device", device, "--activations", activations});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return ReadFile(out);
  };
  EXPECT_EQ(logits("simt", "folder"), logits("cpu", "folder"));
  EXPECT_NE(logits("simt", "folder"), logits("simt", "int16"));
}
#endif

TEST_F(CliTest, IdsThatAreNoneAreRefused) {
  const auto refused = [&](const std::string& ids, const std::string& part) {
    WriteFileAtomically(folder_ / "bad.txt", ids);
    ExpectError({"logits", gguf_, "--tokens", folder_ / "bad.txt", "-o", folder_ / "x"},
                ExitCode::kInput, part);
  };
  refused("1 two 3", "no number");
  refused("1 99999999999", "no number");  // Beyond int32, and last in the file
  refused("1 2.5", "no number");
  refused("1 -4", "-4");
  refused("1 100000", "100000");
  refused("", "no tokens");
}

TEST_F(CliTest, TokenizerTrainsEncodesAndDecodes) {
  std::string corpus;
  for (int i = 0; i < 200; ++i)
    corpus += StrCat("the ", i, " cats and the dogs of line ", i * 7, " ran over the hill\n");
  WriteFileAtomically(folder_ / "corpus.txt", corpus);
  const std::string model = folder_ / "t.model";
  const Outcome trained =
      Call({"tokenizer", "train", folder_ / "corpus.txt", "--vocab-size", "300", "-o", model});
  ASSERT_EQ(trained.code, 0) << trained.err;
  const std::string text = "the dogs \xC3\xA9  ran\n";
  const Outcome ids = Call({"tokenizer", "encode", model, "--text", text});
  ASSERT_EQ(ids.code, 0) << ids.err;
  EXPECT_EQ(ids.out.find_first_not_of("0123456789 \n"), std::string::npos) << ids.out;
  const Outcome back = Call({"tokenizer", "decode", model, "--ids", ids.out});
  EXPECT_EQ(back.code, 0) << back.err;
  EXPECT_EQ(back.out, text);
  ExpectError({"tokenizer", "decode", model, "--ids", "5 x"}, ExitCode::kInput, "no number");
  ExpectError({"tokenizer", "decode", model, "--ids", "300"}, ExitCode::kInput, "300");
  ExpectError({"tokenizer", "encode", model, "--text", "\xFF"}, ExitCode::kInput, "");
}

// Goal: the tokenizer inside a GGUF file serves as well as a model file.
TEST_F(CliTest, TokenizerOfAModel) {
  const Outcome ids = Call({"tokenizer", "encode", gguf_, "--text", "x"});
  EXPECT_EQ(ids.out, StrCat(ByteId('x'), "\n")) << ids.err;
  EXPECT_EQ(Call({"tokenizer", "decode", gguf_, "--ids", StrCat(ByteId('x'))}).out, "x");
}

class InspectTest : public CliTest {
 protected:
  // Both outputs, of which the JSON one is returned.
  nlohmann::json Inspect(const std::string& path, const std::string& in_text) {
    const Outcome text = Call({"inspect", path}), json = Call({"inspect", path, "--json"});
    EXPECT_EQ(text.code, 0) << text.err;
    EXPECT_EQ(json.code, 0) << json.err;
    EXPECT_NE(text.out.find(in_text), std::string::npos) << text.out;
    return nlohmann::json::parse(json.out);
  }

  static size_t Count(const nlohmann::json& description) { return description["tensors"].size(); }
};

TEST_F(InspectTest, Gguf) {
  const size_t tensors = ParameterTable(model_.config).size() + model_.ternary.size();  // + scales
  EXPECT_EQ(Count(Inspect(gguf_, "blk.1.ffn_down.scale")), tensors);
}

TEST_F(InspectTest, HuggingFaceFolderAndFile) {
  const std::string folder = folder_ / "hf";
  WriteHfFolder(model_, folder);
  const size_t tensors = ParameterTable(model_.config).size() + model_.ternary.size();
  EXPECT_EQ(Count(Inspect(folder, "lm_head.weight")), tensors);
  EXPECT_EQ(Count(Inspect(folder + "/model.safetensors", "lm_head.weight")), tensors);
}

TEST_F(InspectTest, CheckpointFolderAndItsState) {
  const std::vector<float> weight(6, 0.5f);
  checkpoint::CheckpointMeta meta;
  meta.step = 12;
  const std::string folder = checkpoint::WriteCheckpoint(
      folder_.path(), meta, {{"/model/w", h5::Type::kF32, {2, 3}, weight.data()}});
  for (const std::string& path : {folder, folder + "/state.h5"}) {
    const auto description = Inspect(path, "/model/w");
    EXPECT_EQ(description["metadata"]["step"], 12);
    EXPECT_EQ(description["tensors"][0]["shape"], (std::vector<int64_t>{2, 3}));
  }
  // A flipped byte must not be shown as if it were right.
  std::string state = ReadFile(folder + "/state.h5");
  state[state.size() / 2] = static_cast<char>(state[state.size() / 2] ^ 1);
  WriteFileAtomically(folder + "/state.h5", state);
  ExpectError({"inspect", folder}, ExitCode::kInput, "state.h5");
}

TEST_F(InspectTest, ModelFile) {
  const std::string path = folder_ / "model.h5";
  engine::WriteModelFile(*engine::OpenModel(gguf_), path);
  const auto description = Inspect(path, "model.layers.1.mlp.down_proj.weight  T2");
  EXPECT_EQ(description["kind"], "model file");
  EXPECT_EQ(description["metadata"]["config"]["num_layers"], model_.config.num_layers);
  EXPECT_EQ(Count(description), ParameterTable(model_.config).size() + model_.ternary.size());
  // Beyond the metadata: in a tensor, wherever it lies.
  std::string bytes = ReadFile(path);
  bytes[bytes.size() - 9] = static_cast<char>(bytes[bytes.size() - 9] ^ 1);
  WriteFileAtomically(path, bytes);
  ExpectError({"inspect", path}, ExitCode::kInput, path);
}

TEST_F(InspectTest, TokenFile) {
  const text::Tokenizer tokenizer = text::Tokenizer::FromPieces(ByteVocabulary());
  data::Corpus corpus;
  data::Document document;
  document.text = "To be";
  corpus.train.push_back(document);
  const std::string path = folder_ / "corpus.tokens.h5";
  data::WriteTokenFile(path, corpus, tokenizer, {});
  EXPECT_GT(Count(Inspect(path, "train")), 0u);
  // A flipped token must not be shown as if it were right.
  std::string bytes = ReadFile(path);
  const size_t at = bytes.find("To be") == std::string::npos ? bytes.size() - 40 : 0;
  for (size_t i = 0; i < 32; ++i) bytes[at + i] = static_cast<char>(bytes[at + i] ^ 0x55);
  WriteFileAtomically(path, bytes);
  ExpectError({"inspect", path}, ExitCode::kInput, path);
}

TEST_F(InspectTest, TokenizerJournalAndRunFolder) {
  const text::Tokenizer tokenizer = text::Tokenizer::FromPieces(ByteVocabulary());
  tokenizer.Save(folder_ / "tokenizer.model");
  EXPECT_EQ(Inspect(folder_ / "tokenizer.model", "pieces")["metadata"]["pieces"],
            tokenizer.vocab_size());
  WriteFileAtomically(folder_ / "journal.jsonl", "{\"event\":\"a\"}\n{\"event\":\"b\"}\n");
  EXPECT_EQ(Inspect(folder_ / "journal.jsonl", "records")["metadata"]["records"], 2);
  MakeFolders(folder_ / "run/stages");
  WriteFileAtomically(folder_ / "run/stages/train.json", "{\"status\": \"done\"}");
  EXPECT_EQ(Inspect(folder_ / "run", "train")["metadata"]["train"]["status"], "done");
  WriteFileAtomically(folder_ / "run/stages/train.json", "{\"status\": 3}");
  EXPECT_EQ(Inspect(folder_ / "run", "train")["metadata"]["train"]["status"], 3);
  WriteFileAtomically(folder_ / "run/stages/train.json", "{\"status\"");
  ExpectError({"inspect", folder_ / "run"}, ExitCode::kInput, "train.json");
  WriteFileAtomically(folder_ / "tokenizer.model", "no model");
  ExpectError({"inspect", folder_ / "tokenizer.model"}, ExitCode::kInput, "tokenizer.model");
}

TEST_F(InspectTest, OtherFilesAreRefused) {
  ExpectError({"inspect", folder_ / "ids.txt"}, ExitCode::kInput, "ids.txt");
  MakeFolders(folder_ / "empty");
  ExpectError({"inspect", folder_ / "empty"}, ExitCode::kInput, "empty");
}

TEST_F(CliTest, DoctorSaysWhatIsThere) {
  const Outcome outcome = Call({"doctor"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  for (const char* part : {TERN_VERSION, "HDF5", "scalar", "CUDA", "processors"})
    EXPECT_NE(outcome.out.find(part), std::string::npos) << part << " in " << outcome.out;
}

}  // namespace
}  // namespace tern::testing
