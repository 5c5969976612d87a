// Writing a checkpoint so that a kill, a power cut or a full disk at any moment leaves the earlier
// ones as they are: all files go into a folder of a temporary name, are synced, and the folder gets
// its name by one rename.
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/folders.h"
#include "checkpoint/manifest.h"
#include "checkpoint/state_file.h"

namespace tern::checkpoint {
namespace {

namespace fs = std::filesystem;

std::string DumpState(const nlohmann::json& state) {
  try {
    return state.dump();
  } catch (const nlohmann::json::exception& error) {
    throw BugError(StrCat("the state of a checkpoint is not UTF-8: ", error.what()));
  }
}

void WriteStateFile(const std::string& path, const CheckpointMeta& meta,
                    const std::vector<TensorView>& tensors) {
  h5::File file = h5::File::Create(path);
  file.SetAttribute("/", kFormatAttribute, std::string(kStateFormat));
  file.SetAttribute("/", kVersionAttribute, kFormatVersion);
  file.SetAttribute("/", kStepAttribute, meta.step);
  file.SetAttribute("/", kKindAttribute, meta.kind);
  const std::string state = DumpState(meta.state);
  file.Write(kStateDataset, h5::Type::kU8, {static_cast<int64_t>(state.size())}, state.data());
  for (const TensorView& tensor : tensors)
    file.Write(tensor.name, tensor.type, tensor.shape, tensor.data);
  file.Close();
  SyncPath(path);
}

Manifest MakeManifest(const std::string& folder, const CheckpointMeta& meta) {
  Manifest manifest{meta.step, meta.kind, {}, {}};
  for (const auto& [name, value] : meta.metrics) {
    if (std::isfinite(value)) manifest.metrics[name] = value;
  }
  const std::string path = folder + "/" + kStateName;
  manifest.files.push_back(
      {kStateName, static_cast<int64_t>(fs::file_size(path)), Sha256OfFile(path)});
  return manifest;
}

// Gives `temporary` the name `final_path`. One that is there is swapped out in the same system call
// where the file system can do that, and removed after.
void MoveIntoPlace(const std::string& temporary, const std::string& final_path) {
  const auto refuse = [&] {
    throw ResourceError(
        StrCat("cannot rename ", temporary, " to ", final_path, ": ", std::strerror(errno)));
  };
  if (!fs::exists(final_path)) {
    if (::rename(temporary.c_str(), final_path.c_str()) != 0) refuse();
    return;
  }
  if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, final_path.c_str(), RENAME_EXCHANGE) !=
      0) {
    const std::string old = StrCat(temporary, ".replaced");
    if (::rename(final_path.c_str(), old.c_str()) != 0) refuse();
    if (::rename(temporary.c_str(), final_path.c_str()) != 0) refuse();
    fs::remove_all(old);
  }
  fs::remove_all(temporary);
}

void CheckArguments(const CheckpointMeta& meta, const std::vector<TensorView>& tensors) {
  TERN_CHECK(meta.step >= 0 && meta.state.is_object(), "step ", meta.step);
  std::set<std::string_view> names;
  for (const TensorView& tensor : tensors) {
    TERN_CHECK(tensor.name.starts_with('/') && tensor.name != kStateDataset &&
                   names.insert(tensor.name).second,
               "tensor name ", tensor.name);
  }
}

}  // namespace

std::string WriteCheckpoint(const std::string& folder, const CheckpointMeta& meta,
                            const std::vector<TensorView>& tensors) {
  CheckArguments(meta, tensors);
  MakeFolders(folder);
  const std::string final_path = folder + "/" + FolderName(meta.step);
  const std::string temporary =
      StrCat(folder, "/", kTemporaryPrefix, FolderName(meta.step), ".", ::getpid());
  std::error_code ignored;
  try {
    fs::remove_all(temporary, ignored);
    MakeFolders(temporary);
    WriteStateFile(temporary + "/" + kStateName, meta, tensors);
    WriteFileAtomically(temporary + "/" + kManifestName,
                        SerializeManifest(MakeManifest(temporary, meta)));
    MoveIntoPlace(temporary, final_path);
  } catch (const fs::filesystem_error& error) {
    fs::remove_all(temporary, ignored);
    throw ResourceError(StrCat("cannot write checkpoint ", final_path, ": ", error.what()));
  } catch (...) {
    fs::remove_all(temporary, ignored);
    throw;
  }
  SyncPath(folder);
  return final_path;
}

}  // namespace tern::checkpoint
