// Writing a checkpoint so that a kill, a power cut or a full disk at any moment leaves the earlier
// ones as they are: all files go into a folder of a temporary name, are synced, and the folder gets
// its name by one rename.
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
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

// What state.h5 says besides its tensors.
void WriteHead(h5::File& file, const CheckpointMeta& meta) {
  file.SetAttribute("/", kFormatAttribute, std::string(kStateFormat));
  file.SetAttribute("/", kVersionAttribute, kFormatVersion);
  file.SetAttribute("/", kStepAttribute, meta.step);
  file.SetAttribute("/", kKindAttribute, meta.kind);
  const std::string state = DumpState(meta.state);
  file.Write(kStateDataset, h5::Type::kU8, {static_cast<int64_t>(state.size())}, state.data());
}

void WriteStateFile(const std::string& path, const CheckpointMeta& meta,
                    const std::vector<TensorView>& tensors) {
  h5::File file = h5::File::Create(path);
  WriteHead(file, meta);
  for (const TensorView& tensor : tensors)
    file.Write(tensor.name, tensor.type, tensor.shape, tensor.data);
  file.Close();
  SyncPath(path);
}

ManifestFile FileEntry(const std::string& folder, const std::string& name) {
  const std::string path = folder + "/" + name;
  return {name, static_cast<int64_t>(fs::file_size(path)), Sha256OfFile(path)};
}

std::string PartName(size_t rank, size_t ranks) {
  std::array<char, 48> name{};
  std::snprintf(name.data(), name.size(), "rank-%04zu-of-%04zu.h5", rank, ranks);
  return name.data();
}

std::string TemporaryPath(const std::string& folder, int64_t step) {
  return StrCat(folder, "/", kTemporaryPrefix, FolderName(step), ".", ::getpid());
}

// Runs `write`, which fills `temporary`; when it fails, nothing stays there.
template <class Function>
void OrRemove(const std::string& temporary, const Function& write) {
  std::error_code ignored;
  try {
    write();
  } catch (const fs::filesystem_error& error) {
    fs::remove_all(temporary, ignored);
    throw ResourceError(StrCat("cannot write checkpoint ", temporary, ": ", error.what()));
  } catch (...) {
    fs::remove_all(temporary, ignored);
    throw;
  }
}

Manifest MakeManifest(const std::string& folder, const CheckpointMeta& meta) {
  Manifest manifest{meta.step, meta.kind, {}, {}};
  for (const auto& [name, value] : meta.metrics) {
    if (std::isfinite(value)) manifest.metrics[name] = value;
  }
  manifest.files.push_back(FileEntry(folder, kStateName));
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
  const std::string temporary = TemporaryPath(folder, meta.step);
  OrRemove(temporary, [&] {
    fs::remove_all(temporary);
    MakeFolders(temporary);
    WriteStateFile(temporary + "/" + kStateName, meta, tensors);
    WriteFileAtomically(temporary + "/" + kManifestName,
                        SerializeManifest(MakeManifest(temporary, meta)));
    MoveIntoPlace(temporary, final_path);
  });
  SyncPath(folder);
  return final_path;
}

std::string BeginParts(const std::string& folder, int64_t step) {
  MakeFolders(folder);
  const std::string temporary = TemporaryPath(folder, step);
  OrRemove(temporary, [&] {
    fs::remove_all(temporary);
    MakeFolders(temporary);
  });
  return temporary;
}

void AbandonParts(const std::string& part_folder) {
  std::error_code ignored;  // A leftover is removed at the next start.
  fs::remove_all(part_folder, ignored);
}

PartFile WritePart(const std::string& part_folder, int rank, int ranks,
                   const std::vector<PartView>& tensors) {
  const std::string name = PartName(static_cast<size_t>(rank), static_cast<size_t>(ranks));
  const std::string path = part_folder + "/" + name;
  PartFile part;
  h5::File file = h5::File::Create(path);
  for (const PartView& tensor : tensors) {
    const int64_t rows = tensor.view.shape.at(0);
    if (rows > 0)
      file.Write(tensor.view.name, tensor.view.type, tensor.view.shape, tensor.view.data);
    part.rows.emplace_back(tensor.first, rows);
  }
  file.Close();
  SyncPath(path);
  const ManifestFile entry = FileEntry(part_folder, name);
  part.size_bytes = entry.size_bytes;
  part.sha256 = entry.sha256;
  return part;
}

std::string FinishParts(const std::string& folder, const std::string& part_folder,
                        const CheckpointMeta& meta, const std::vector<PartView>& tensors,
                        const std::vector<PartFile>& files) {
  const std::string final_path = folder + "/" + FolderName(meta.step);
  OrRemove(part_folder, [&] {
    h5::File file = h5::File::Create(part_folder + "/" + kStateName);
    WriteHead(file, meta);
    for (size_t t = 0; t < tensors.size(); ++t) {
      std::vector<int64_t> shape = tensors[t].view.shape;
      shape[0] = tensors[t].all_rows;
      std::vector<h5::File::VirtualPart> parts;
      for (size_t rank = 0; rank < files.size(); ++rank) {
        const auto [first, rows] = files[rank].rows.at(t);
        if (rows > 0) {
          parts.push_back({PartName(rank, files.size()), tensors[t].view.name, first, rows});
        }
      }
      std::sort(parts.begin(), parts.end(),
                [](const auto& a, const auto& b) { return a.first < b.first; });
      file.CreateVirtual(tensors[t].view.name, tensors[t].view.type, shape, parts);
    }
    file.Close();
    SyncPath(part_folder + "/" + kStateName);
    Manifest manifest = MakeManifest(part_folder, meta);
    for (size_t rank = 0; rank < files.size(); ++rank) {
      manifest.files.push_back(
          {PartName(rank, files.size()), files[rank].size_bytes, files[rank].sha256});
    }
    CheckSizes(manifest, part_folder);
    WriteFileAtomically(part_folder + "/" + kManifestName, SerializeManifest(manifest));
    MoveIntoPlace(part_folder, final_path);
  });
  SyncPath(folder);
  return final_path;
}

}  // namespace tern::checkpoint
