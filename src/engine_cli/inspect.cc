// tern inspect: what is in a file of ours: GGUF, safetensors, checkpoint, token file.
#include "formats/inspect.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "engine_cli/commands.h"
#include "h5/h5.h"

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

json DescribeHdf5(const std::string& path) {
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

// What only this module may read; formats/inspect.h knows GGUF and safetensors. Nothing for those.
std::optional<json> DescribeOwn(const std::string& path) {
  if (fs::is_directory(path)) {
    if (fs::exists(path + "/manifest.json")) return DescribeCheckpoint(path);
    return std::nullopt;
  }
  const MappedFile file(path);
  const std::string_view head(reinterpret_cast<const char*>(file.bytes().data()),
                              std::min<size_t>(8, file.bytes().size()));
  if (head.starts_with("\x89HDF")) {
    const bool checkpoint = fs::exists(fs::path(path).parent_path() / "manifest.json");
    return checkpoint ? DescribeCheckpoint(path) : DescribeHdf5(path);
  }
  if (head.starts_with("GGUF") || path.ends_with(".safetensors") ||
      path.ends_with(".safetensors.index.json"))
    return std::nullopt;
  throw FormatError(StrCat(
      path, " is no file that tern writes or reads: GGUF, safetensors, checkpoint, token file"));
}

void Print(const std::string& path, const json& description) {
  std::cout << path << ": " << description["kind"].get<std::string>() << "\n";
  for (const auto& [key, value] : description["metadata"].items())
    std::cout << "  " << key << ": " << value.dump() << "\n";
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
  CLI::App* command =
      app.add_subcommand("inspect", "Look inside a GGUF, safetensors, checkpoint or token file");
  command->footer("Example: tern inspect checkpoints/quickstart/exports/quickstart-tq2_0.gguf");
  struct Flags {
    std::string path;
    bool json = false;
  };
  auto flags = std::make_shared<Flags>();
  command->add_option("file", flags->path, "File, checkpoint folder or Hugging Face folder")
      ->required();
  command->add_flag("--json", flags->json, "JSON instead of text");
  command->callback([flags] { Run(flags->path, flags->json); });
}

}  // namespace tern::engine_cli
