// Checkpoints of a run: folders step-00000600/ with state.h5 (tensors, and the run's state as JSON)
// and manifest.json (sizes and SHA-256 of the files, written last). Byte layout:
// docs/formats/checkpoint.md. Invariants: a folder of that name is whole, because it is written
// under another name, synced, and renamed; nothing in a file is used before its checksum is
// verified; whatever moment a writer is killed at, the newest valid checkpoint is the new one or
// the one before. Knows nothing of models and optimizers: tensors are names, shapes and bytes on
// the host.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "h5/h5.h"

namespace tern::checkpoint {

inline constexpr int64_t kFormatVersion = 1;

// Where tensors stand in state.h5; a parameter "layers.0.attention.q" is the dataset
// "/model/layers.0.attention.q".
inline constexpr std::string_view kModelGroup = "/model/";
inline constexpr std::string_view kExpAvgGroup = "/optimizer/exp_avg/";
inline constexpr std::string_view kExpAvgSqGroup = "/optimizer/exp_avg_sq/";

// A tensor to be written: row-major host memory that lives until the call returns.
struct TensorView {
  std::string name;  // Absolute: kModelGroup + the parameter's name.
  h5::Type type = h5::Type::kF32;
  std::vector<int64_t> shape;
  const void* data = nullptr;
};

struct TensorInfo {
  std::string name;
  h5::Type type = h5::Type::kF32;
  std::vector<int64_t> shape;
  int64_t size_bytes = 0;
};

struct CheckpointMeta {
  int64_t step = 0;
  std::string kind = "train";  // What wrote it: train, import, ...
  // Numbers a checkpoint may be chosen by, lower is better ("validation_loss"). They stand in the
  // manifest; one that is not finite is left out.
  std::map<std::string, double> metrics;
  // Everything else needed to go on to the same bits: model config, loss scaler, stream counters,
  // sampler position, running losses, versions, recipe text. 64-bit integers and finite doubles
  // come back exactly; NaN and Inf come back as null.
  nlohmann::json state = nlohmann::json::object();
};

// "step-00000600".
std::string FolderName(int64_t step);

// Writes `folder`/step-XXXXXXXX and returns its path. One that is there already is replaced, in one
// system call where the file system can swap names. Throws ResourceError when the disk is full or
// the folder cannot be written; then nothing of the new checkpoint stays and those before are
// untouched. REQUIRES: step >= 0, names unique and absolute, one writer a folder (the run's
// FileLock).
std::string WriteCheckpoint(const std::string& folder, const CheckpointMeta& meta,
                            const std::vector<TensorView>& tensors);

// ---- A checkpoint that several ranks write together: rank-0000-of-0002.h5, ... with the rows each
// has, and a state.h5 whose virtual datasets join them, so that every reader sees whole tensors.
// 1. The root calls BeginParts; 2. every rank calls WritePart in the folder that returns, and hands
// its PartFile to the root; 3. the root calls FinishParts (or, when any rank failed, AbandonParts).
// Until 3 is through, the folder has a temporary name.

// Rows [first, first + view.shape[0]) of a tensor, along its first axis; view.data may be null when
// it has none.
struct PartView {
  TensorView view;
  int64_t first = 0;
  int64_t all_rows = 0;  // Of the whole tensor
};

struct PartFile {
  int64_t size_bytes = 0;
  std::string sha256;
  std::vector<std::pair<int64_t, int64_t>> rows;  // First row and number, for each tensor in order
};

std::string BeginParts(const std::string& folder, int64_t step);
// All ranks give the same names in the same order. Throws ResourceError (disk full).
PartFile WritePart(const std::string& part_folder, int rank, int ranks,
                   const std::vector<PartView>& tensors);
// `files` in rank order. Returns the checkpoint's path. `tensors`: the root's own list.
std::string FinishParts(const std::string& folder, const std::string& part_folder,
                        const CheckpointMeta& meta, const std::vector<PartView>& tensors,
                        const std::vector<PartFile>& files);
void AbandonParts(const std::string& part_folder);

// Opens one checkpoint and verifies it: manifest, format version, sizes, SHA-256, HDF5, names and
// types. Throws InputError when there is none, FormatError (file, found, wanted) when it is not to
// be trusted.
class CheckpointReader {
 public:
  // `path` is the folder or the state.h5 in it.
  explicit CheckpointReader(const std::string& path);
  ~CheckpointReader();
  CheckpointReader(CheckpointReader&&) noexcept;
  CheckpointReader& operator=(CheckpointReader&&) noexcept;

  const std::string& folder() const;  // Without "/state.h5".
  const CheckpointMeta& meta() const;
  const std::vector<TensorInfo>& tensors() const;  // In name order.
  // nullptr when there is no such tensor.
  const TensorInfo* Find(std::string_view name) const;
  // Reads a whole tensor. Throws FormatError when it is missing or has another type, shape or size.
  void Read(const std::string& name, h5::Type type, const std::vector<int64_t>& shape,
            void* out) const;
  // Rows [first, first + rows) of a tensor of `shape`, along its first axis.
  void ReadRows(const std::string& name, h5::Type type, const std::vector<int64_t>& shape,
                int64_t first, int64_t rows, void* out) const;
  // Hash of all files (of state.h5 itself when there is no other), lower-case hex: names the exact
  // bits a derived file was made from.
  const std::string& sha256() const;

 private:
  // Throws FormatError unless there is such a tensor.
  const TensorInfo& Wanted(const std::string& name, h5::Type type,
                           const std::vector<int64_t>& shape) const;

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct Refused {
  std::string path;
  std::string reason;
};

struct Found {
  std::optional<std::string>
      path;  // The checkpoint's folder; none: the stage starts from its beginning.
  int64_t step = 0;
  // Newer (or better) ones that were passed over, each with its reason: to be said aloud.
  std::vector<Refused> refused;
};

// The checkpoint of the highest step in `folder` that verifies. A missing folder has none.
Found FindNewestValid(const std::string& folder);
// The one with the lowest `metric` (ties: the newer) that verifies, among those that hold the
// metric.
Found FindBestValid(const std::string& folder, const std::string& metric);

struct Retention {
  int64_t keep_last = 2;    // At least 1.
  std::string best_metric;  // Also keep the checkpoint of the lowest such metric; empty: none.
};

// Deletes the checkpoints that `retention` does not keep: each is renamed away first, so that a
// kill in the middle never leaves a half-deleted checkpoint under a checkpoint's name. Returns the
// steps deleted. Refused folders are not touched and do not count.
std::vector<int64_t> ApplyRetention(const std::string& folder, const Retention& retention);

// Removes what killed writers and deleters left (names beginning with ".tmp-" or ".old-"). Returns
// how many. REQUIRES: no other process writes in `folder`.
int64_t RemoveLeftovers(const std::string& folder);

}  // namespace tern::checkpoint
