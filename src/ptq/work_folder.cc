// See work_folder.h.
#include "ptq/work_folder.h"

#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "formats/safetensors.h"
#include "formats/strict_json.h"

namespace tern::ptq {
namespace {

namespace fs = std::filesystem;

std::string Numbered(const std::string& folder, const char* kind, int64_t layer,
                     const char* ending) {
  char name[64];
  std::snprintf(name, sizeof name, "/%s-%05d%s", kind, static_cast<int>(layer), ending);
  return folder + name;
}

}  // namespace

WorkFolder::WorkFolder(const std::string& output, const nlohmann::json& job, bool discard_other)
    : output_(output), path_(output + ".partial") {
  const std::string job_file = path_ + "/job.json";
  if (fs::exists(output)) {
    // Killed between the last two steps of Finish.
    if (fs::exists(job_file) && ReadFile(job_file) == job.dump(2) + "\n") fs::remove_all(path_);
    throw InputError(
        StrCat(output, " exists; give another name, or remove it: it is not written over"));
  }
  MakeFolders(path_);
  lock_.emplace(path_ + "/lock");
  RemoveUnfinishedFiles(path_);
  if (discard_other && fs::exists(job_file) && ReadFile(job_file) != job.dump(2) + "\n") {
    LogInfo(path_, " is the unfinished work of another job, and is begun again");
    std::vector<fs::path> files;
    for (const fs::directory_entry& entry : fs::directory_iterator(path_))
      if (entry.path().filename() != "lock") files.push_back(entry.path());
    for (const fs::path& file : files) fs::remove_all(file);
  }
  if (fs::exists(job_file)) {
    const nlohmann::json other = formats::ParseStrictJson(ReadFile(job_file), job_file);
    for (const auto& [key, value] : job.items()) {
      TERN_CHECK_INPUT(other.contains(key) && other[key] == value, path_,
                       " is the unfinished work of another job: ", key, " is ",
                       other.contains(key) ? other[key].dump() : "absent", ", now ", value.dump(),
                       "; remove the folder to begin again");
    }
    while (fs::exists(LayerFile(layers_done_))) ++layers_done_;
    LogInfo(path_, ": going on behind ", layers_done_, " layers that are done");
    return;
  }
  WriteFileAtomically(job_file, job.dump(2) + "\n");
}

WorkFolder::~WorkFolder() {
  std::error_code ignored;
  if (layers_done_ == 0 && !fs::exists(PlanFile())) fs::remove_all(path_, ignored);
}

std::string WorkFolder::LayerFile(int64_t layer) const {
  return Numbered(path_, "layer", layer, ".safetensors");
}
std::string WorkFolder::PlanFile() const { return path_ + "/plan.json"; }
std::string WorkFolder::StreamFile(int64_t layer) const {
  return Numbered(path_, "stream", layer, ".safetensors");
}
std::string WorkFolder::LedgerFile(int64_t layer) const {
  return Numbered(path_, "ledger", layer, ".json");
}

at::Tensor WorkFolder::Stream(const ActivationRoom& room) const {
  const std::string file = StreamFile(layers_done_ - 1);
  const formats::SafetensorsReader reader(file);
  const formats::SafetensorsTensor& stream = reader.Get("stream");
  TERN_CHECK_FORMAT(stream.dtype == "F32", file, ": stream is ", stream.dtype, "; want F32");
  at::Tensor out = room.New(stream.shape);
  const size_t bytes = stream.bytes.size() / static_cast<size_t>(out.size(0));
  for (int64_t b = 0; b < out.size(0); ++b) {
    std::memcpy(out[b].mutable_data_ptr(), stream.bytes.data() + static_cast<size_t>(b) * bytes,
                bytes);
    reader.DropPages();
    room.Drop(out[b]);
  }
  return out;
}

void WorkFolder::SaveLayer(int64_t layer, const std::vector<NamedTensor>& tensors,
                           const std::vector<nlohmann::json>& ledger, const at::Tensor& stream,
                           const ActivationRoom& room) {
  TERN_CHECK(layer == layers_done_, "layer ", layer, " behind ", layers_done_);
  WriteFileAtomically(LedgerFile(layer), nlohmann::json(ledger).dump() + "\n");
  if (stream.defined()) {
    formats::SafetensorsWriter writer;
    writer.Add("stream", "F32", stream.sizes().vec(), stream.const_data_ptr(), room.OnDisk());
    writer.Write(StreamFile(layer));
  }
  formats::SafetensorsWriter writer;
  for (const NamedTensor& tensor : tensors)
    writer.Add(tensor.name, tensor.dtype, tensor.shape, tensor.bytes.data());
  writer.Write(LayerFile(layer));
  ++layers_done_;
  if (layer > 0) fs::remove(StreamFile(layer - 1));
}

std::string WorkFolder::SaveTensor(const NamedTensor& tensor) const {
  const std::string file = StrCat(path_, "/", tensor.name, ".safetensors");
  formats::SafetensorsWriter writer;
  writer.Add(tensor.name, tensor.dtype, tensor.shape, tensor.bytes.data());
  writer.Write(file);
  return file;
}

std::vector<nlohmann::json> WorkFolder::Ledger() const {
  std::vector<nlohmann::json> lines;
  for (int64_t layer = 0; layer < layers_done_; ++layer) {
    const std::string file = LedgerFile(layer);
    for (nlohmann::json& line : formats::ParseStrictJson(ReadFile(file), file))
      lines.push_back(std::move(line));
  }
  return lines;
}

void WorkFolder::Finish(const std::string& folder) {
  std::error_code error;
  fs::rename(folder, output_, error);
  if (error)
    throw ResourceError(StrCat("cannot name ", folder, " ", output_, ": ", error.message()));
  const std::string parent = fs::path(output_).parent_path().string();
  SyncPath(parent.empty() ? "." : parent);
  // Its job last: while that is there, a process that is started again clears up what is left.
  std::vector<fs::path> others;
  for (const fs::directory_entry& entry : fs::directory_iterator(path_))
    if (entry.path().filename() != "job.json") others.push_back(entry.path());
  for (const fs::path& other : others) fs::remove_all(other);
  fs::remove_all(path_);
}

}  // namespace tern::ptq
