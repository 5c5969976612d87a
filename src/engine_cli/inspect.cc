// tern inspect: what is in a file: GGUF, safetensors, checkpoint, model file, token file (also of
// Megatron and llm.c), tokenizer, journal, metrics, run folder. What has checksums is verified
// before anything is shown.
#include "formats/inspect.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "arch/model_config_json.h"
#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "checkpoint/checkpoint.h"
#include "data/mapped_tokens.h"
#include "data/token_file.h"
#include "engine/model_file.h"
#include "engine_cli/commands.h"
#include "h5/h5.h"
#include "metrics/journal.h"
#include "text/tokenizer.h"

namespace tern::engine_cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const char* TypeName(h5::Type type) {
  switch (type) {
    case h5::Type::kF32:
      return "F32";
    case h5::Type::kF64:
      return "F64";
    case h5::Type::kF16:
      return "F16";
    case h5::Type::kU8:
      return "U8";
    case h5::Type::kI8:
      return "I8";
    case h5::Type::kU16:
      return "U16";
    case h5::Type::kI32:
      return "I32";
    case h5::Type::kU32:
      return "U32";
    case h5::Type::kI64:
      return "I64";
    case h5::Type::kU64:
      return "U64";
  }
  __builtin_unreachable();
}

// Verified before anything is shown.
json DescribeCheckpoint(const std::string& path) {
  const checkpoint::CheckpointReader reader(path);
  json tensors = json::array();
  for (const checkpoint::TensorInfo& tensor : reader.tensors()) {
    tensors.push_back({{"name", tensor.name},
                       {"type", TypeName(tensor.type)},
                       {"shape", tensor.shape},
                       {"bytes", tensor.size_bytes}});
  }
  json state = reader.meta().state;
  state.erase("recipe");
  return {{"kind", "checkpoint"},
          {"metadata",
           {{"step", reader.meta().step},
            {"sha256", reader.sha256()},
            {"metrics", reader.meta().metrics},
            {"state", state}}},
          {"tensors", tensors}};
}

// Every tensor is read once and its checksum compared.
json DescribeModelFile(const std::string& path) {
  const std::unique_ptr<engine::ModelSource> source = engine::OpenModelFile(path);
  for (const ParameterSpec& spec : ParameterTable(source->config())) {
    if (spec.role == ParameterRole::kNorm || spec.role == ParameterRole::kBias) {
      source->Vector(spec);
    } else {
      source->Linear(spec);
    }
  }
  source->CheckAllUsed();
  const h5::File file = h5::File::OpenForReading(path);
  json tensors = json::array();
  for (const std::string& name : file.ListDatasets("/model")) {
    const h5::DatasetInfo info = file.Info(name);
    int64_t bytes = h5::SizeOf(info.type);
    for (const int64_t size : info.shape) bytes *= size;
    const bool typed = std::ranges::count(file.AttributeNames(name), "type") > 0;
    tensors.push_back({{"name", name.substr(std::strlen("/model/"))},
                       {"type", typed ? file.StringAttribute(name, "type") : TypeName(info.type)},
                       {"shape", info.shape},
                       {"bytes", bytes}});
  }
  json files = json::array();
  for (const auto& [name, bytes] : source->Files()) files.push_back(name);
  return {{"kind", "model file"},
          {"metadata",
           {{"config", ToJson(source->config())},
            {"activation",
             source->activation() == engine::ActivationRule::kNone ? "none" : "int8_token"},
            {"files", files}}},
          {"tensors", tensors}};
}

json DescribeTokens(const std::string& path) {
  data::TokenFile::Open(path);  // Reads and checks all of it
  const h5::File file = h5::File::OpenForReading(path);
  json tensors = json::array();
  for (const std::string& name : file.ListDatasets()) {
    const h5::DatasetInfo info = file.Info(name);
    int64_t bytes = h5::SizeOf(info.type);
    for (const int64_t size : info.shape) bytes *= size;
    tensors.push_back(
        {{"name", name}, {"type", TypeName(info.type)}, {"shape", info.shape}, {"bytes", bytes}});
  }
  json attributes = json::object();
  for (const std::string& key : file.AttributeNames("/")) {
    try {
      attributes[key] = file.StringAttribute("/", key);
    } catch (const FormatError&) {  // Not a text: a number.
      attributes[key] = file.IntAttribute("/", key);
    }
  }
  return {{"kind", "token file"}, {"metadata", attributes}, {"tensors", tensors}};
}

// Checkpoints have a manifest beside them, model files say what they are.
json DescribeHdf5(const std::string& path) {
  if (fs::exists(fs::path(path).parent_path() / "manifest.json")) return DescribeCheckpoint(path);
  const h5::File file = h5::File::OpenForReading(path);
  const bool model =
      file.HasAttribute("/", "format") && file.StringAttribute("/", "format") == "tern.model";
  return model ? DescribeModelFile(path) : DescribeTokens(path);
}

// Token files of other programs, all ids read; the hash is of them as little-endian int32.
json DescribeMappedTokens(const std::string& path) {
  constexpr int64_t kAnyVocabulary = int64_t{INT32_MAX} + 1, kStep = 1 << 20;
  const data::Split split = data::Split::kTrain;
  const bool megatron =
      path.ends_with(".idx") || fs::exists(fs::path(path).replace_extension("idx"));
  const auto tokens = megatron ? data::OpenMegatron(path, split, kAnyVocabulary)
                               : data::OpenLlmc(path, split, kAnyVocabulary);
  const int64_t all = tokens->NumTokens(split);
  Sha256 hash;
  std::vector<int32_t> ids;
  int32_t largest = -1;
  for (int64_t at = 0; at < all; at += kStep) {
    ids.resize(static_cast<size_t>(std::min(kStep, all - at)));
    tokens->Copy(split, at, static_cast<int64_t>(ids.size()), ids.data());
    hash.Update(ids.data(), ids.size() * sizeof(int32_t));
    largest = std::max(largest, *std::max_element(ids.begin(), ids.end()));
  }
  return {{"kind", megatron ? "Megatron tokens" : "llm.c tokens"},
          {"metadata",
           {{"tokens", all},
            {"documents", tokens->DocumentsIn(split, 0, all).size()},
            {"largest_id", largest},
            {"sha256_int32", hash.HexDigest()}}}};
}

json DescribeTokenizer(const std::string& path) {
  const text::Tokenizer tokenizer = text::Tokenizer::FromFile(path);
  return {{"kind", "tokenizer"},
          {"metadata",
           {{"pieces", tokenizer.vocab_size()},
            {"byte_fallback", tokenizer.has_byte_fallback()},
            {"unknown", tokenizer.unk_id()},
            {"bos", tokenizer.bos_id()},
            {"eos", tokenizer.eos_id()},
            {"sha256", tokenizer.sha256()}}}};
}

// metrics.jsonl and journal.jsonl.
json DescribeJsonLines(const std::string& path) {
  const JsonLines lines = ReadJsonLines(path);
  json metadata = {{"records", lines.records.size()}};
  if (!lines.records.empty()) {
    metadata["first"] = lines.records.front();
    metadata["last"] = lines.records.back();
  }
  return {{"kind", "JSON lines"}, {"metadata", metadata}};
}

json DescribeRun(const std::string& folder) {
  json stages = json::object();
  for (const auto& entry : fs::directory_iterator(folder + "/stages")) {
    json record = json::parse(ReadFile(entry.path().string()), nullptr, false);
    TERN_CHECK_FORMAT(record.is_object(), entry.path().string(), " is no JSON object");
    record.erase("fingerprint");  // The recipe, which recipe.resolved.yaml shows better
    stages[entry.path().stem().string()] = record;
  }
  return {{"kind", "run folder"}, {"metadata", stages}};
}

// What only this module may read; formats/inspect.h knows GGUF and safetensors. Nothing for those.
std::optional<json> DescribeOwn(const std::string& path) {
  if (fs::is_directory(path)) {
    if (fs::exists(path + "/manifest.json")) return DescribeCheckpoint(path);
    if (fs::is_directory(path + "/stages")) return DescribeRun(path);
    return std::nullopt;
  }
  const MappedFile file(path);
  const std::string_view head(reinterpret_cast<const char*>(file.bytes().data()),
                              std::min<size_t>(8, file.bytes().size()));
  if (head.starts_with("\x89HDF")) return DescribeHdf5(path);
  if (head.starts_with("GGUF") || path.ends_with(".safetensors") ||
      path.ends_with(".safetensors.index.json"))
    return std::nullopt;
  if (path.ends_with(".idx") || path.ends_with(".bin")) return DescribeMappedTokens(path);
  if (path.ends_with(".jsonl")) return DescribeJsonLines(path);
  if (path.ends_with(".model")) return DescribeTokenizer(path);
  throw FormatError(
      StrCat(path, " is no file that tern looks into: GGUF, safetensors, checkpoint, ",
             "model file, *.tokens.h5, *.idx and *.bin of tokens, *.model, *.jsonl, run folder"));
}

void Print(const std::string& path, const json& description) {
  std::cout << path << ": " << description["kind"].get<std::string>() << "\n";
  for (const auto& [key, value] : description["metadata"].items())
    std::cout << "  " << key << ": " << value.dump() << "\n";
  if (!description.contains("tensors")) return;
  int64_t bytes = 0;
  for (const json& tensor : description["tensors"]) {
    std::cout << "  " << tensor["name"].get<std::string>() << "  "
              << tensor["type"].get<std::string>() << "  " << tensor["shape"].dump() << "\n";
    bytes += tensor["bytes"].get<int64_t>();
  }
  std::cout << "  " << description["tensors"].size() << " tensors, " << bytes << " bytes\n";
}

void Run(const std::string& path, bool as_json) {
  const std::optional<json> own = DescribeOwn(path);
  const json description = own ? *own : formats::Inspect(path);
  if (as_json) {
    std::cout << description.dump(2) << "\n";
  } else if (own) {
    Print(path, description);
  } else {
    std::cout << formats::InspectText(description);
  }
}

}  // namespace

void AddInspectCommand(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "inspect", "Look inside a model file, checkpoint, token file, tokenizer, journal or run");
  command->footer("Example: tern inspect checkpoints/quickstart/exports/quickstart-tq2_0.gguf");
  struct Flags {
    std::string path;
    bool json = false;
  };
  auto flags = std::make_shared<Flags>();
  command
      ->add_option("file", flags->path,
                   "File, or folder of a checkpoint, a Hugging Face model or a run")
      ->required();
  command->add_flag("--json", flags->json, "JSON instead of text");
  command->callback([flags] { Run(flags->path, flags->json); });
}

}  // namespace tern::engine_cli
