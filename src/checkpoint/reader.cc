// Opening a checkpoint: manifest, sizes, hashes, then HDF5, in this order, so that HDF5 only ever
// parses bytes whose checksum holds. What HDF5 says must agree with the manifest.
#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/sha256.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/folders.h"
#include "checkpoint/manifest.h"
#include "checkpoint/state_file.h"

namespace tern::checkpoint {
namespace {

namespace fs = std::filesystem;

// The checkpoint's folder from the folder or its state.h5, without a slash at the end.
std::string ResolveFolder(const std::string& path) {
  fs::path folder(path);
  std::error_code error;
  if (fs::is_regular_file(folder, error) && folder.filename() == kStateName)
    folder = folder.parent_path();
  if (folder.empty()) folder = ".";
  if (!folder.has_filename()) folder = folder.parent_path();
  TERN_CHECK_INPUT(fs::is_directory(folder, error), "no checkpoint at ", path,
                   ": want a folder like step-00000600, or the state.h5 in it");
  return folder.string();
}

// The folder's own name, also for "." and "..".
std::string NameOf(const std::string& folder) {
  std::error_code error;
  const fs::path whole = fs::weakly_canonical(folder, error);
  return error ? fs::path(folder).filename().string() : whole.filename().string();
}

nlohmann::json ReadState(const h5::File& file, const std::string& path) {
  const h5::DatasetInfo info = file.Info(kStateDataset);
  TERN_CHECK_FORMAT(info.type == h5::Type::kU8 && info.shape.size() == 1, path, ": ", kStateDataset,
                    " is not a list of bytes");
  std::string text(static_cast<size_t>(info.shape[0]), '\0');
  file.Read(kStateDataset, h5::Type::kU8, text.data(), static_cast<int64_t>(text.size()));
  auto state = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  TERN_CHECK_FORMAT(state.is_object(), path, ": ", kStateDataset, " is not a JSON object");
  return state;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += StrCat(i == 0 ? "" : ", ", shape[i]);
  return text + "]";
}

}  // namespace

struct CheckpointReader::Impl {
  std::string folder, sha256;
  CheckpointMeta meta;
  std::vector<TensorInfo> tensors;
  std::optional<h5::File> file;
};

CheckpointReader::CheckpointReader(const std::string& path) : impl_(std::make_unique<Impl>()) {
  impl_->folder = ResolveFolder(path);
  const Manifest manifest = ReadManifest(impl_->folder);
  const auto named_step = StepOfFolderName(NameOf(impl_->folder));
  TERN_CHECK_FORMAT(!named_step || *named_step == manifest.step, impl_->folder, "/", kManifestName,
                    ": step ", manifest.step, " in a folder named for step ",
                    named_step.value_or(0), "; give the folder its own name back");
  CheckContents(manifest, impl_->folder);
  std::string hashes;
  for (const ManifestFile& file : manifest.files) {
    if (file.name == kStateName) impl_->sha256 = file.sha256;
    hashes += file.sha256;
  }
  if (manifest.files.size() > 1) impl_->sha256 = Sha256Hex(hashes);

  const std::string state_path = impl_->folder + "/" + kStateName;
  impl_->file = h5::File::OpenForReading(state_path);
  const h5::File& file = *impl_->file;
  const std::string format = file.StringAttribute("/", kFormatAttribute);
  TERN_CHECK_FORMAT(format == kStateFormat, state_path, ": format \"", format, "\", want \"",
                    kStateFormat, "\"");
  const int64_t version = file.IntAttribute("/", kVersionAttribute),
                step = file.IntAttribute("/", kStepAttribute);
  TERN_CHECK_FORMAT(version == kFormatVersion && step == manifest.step, state_path, ": version ",
                    version, ", step ", step, "; want version ", kFormatVersion, ", step ",
                    manifest.step, " as in ", kManifestName);
  impl_->meta = {manifest.step, manifest.kind, manifest.metrics, ReadState(file, state_path)};
  for (const std::string& name : file.ListDatasets()) {
    if (name == kStateDataset) continue;
    const h5::DatasetInfo info = file.Info(name);
    TensorInfo tensor{name, info.type, info.shape, h5::SizeOf(info.type)};
    for (const int64_t size : info.shape) tensor.size_bytes *= size;
    impl_->tensors.push_back(std::move(tensor));
  }
  std::sort(impl_->tensors.begin(), impl_->tensors.end(),
            [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
}

CheckpointReader::~CheckpointReader() = default;
CheckpointReader::CheckpointReader(CheckpointReader&&) noexcept = default;
CheckpointReader& CheckpointReader::operator=(CheckpointReader&&) noexcept = default;

const std::string& CheckpointReader::folder() const { return impl_->folder; }
const CheckpointMeta& CheckpointReader::meta() const { return impl_->meta; }
const std::vector<TensorInfo>& CheckpointReader::tensors() const { return impl_->tensors; }
const std::string& CheckpointReader::sha256() const { return impl_->sha256; }

const TensorInfo* CheckpointReader::Find(std::string_view name) const {
  const auto& all = impl_->tensors;
  const auto found = std::lower_bound(
      all.begin(), all.end(), name,
      [](const TensorInfo& tensor, std::string_view n) { return tensor.name < n; });
  return found != all.end() && found->name == name ? &*found : nullptr;
}

void CheckpointReader::Read(const std::string& name, h5::Type type,
                            const std::vector<int64_t>& shape, void* out) const {
  impl_->file->Read(name, type, out, Wanted(name, type, shape).size_bytes);
}

void CheckpointReader::ReadRows(const std::string& name, h5::Type type,
                                const std::vector<int64_t>& shape, int64_t first, int64_t rows,
                                void* out) const {
  Wanted(name, type, shape);
  impl_->file->ReadRows(name, type, shape, first, rows, out);
}

const TensorInfo& CheckpointReader::Wanted(const std::string& name, h5::Type type,
                                           const std::vector<int64_t>& shape) const {
  const TensorInfo* tensor = Find(name);
  TERN_CHECK_FORMAT(tensor != nullptr, impl_->folder, ": has no tensor ", name,
                    "; was it written by a run of another model or optimizer?");
  TERN_CHECK_FORMAT(tensor->shape == shape, impl_->folder, ": tensor ", name, " has shape ",
                    ShapeText(tensor->shape), ", want ", ShapeText(shape),
                    "; the model of this recipe is another one");
  TERN_CHECK_FORMAT(tensor->type == type, impl_->folder, ": tensor ", name,
                    " has elements of another type (", h5::SizeOf(tensor->type),
                    " bytes each, want ", h5::SizeOf(type), ")");
  return *tensor;
}

}  // namespace tern::checkpoint
