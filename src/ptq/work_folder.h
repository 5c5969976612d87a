// What has been done of a quantization, layer by layer, in OUTPUT.partial: the finished tensors and
// ledger lines of each layer, and the residual stream behind the last one. A process that is killed
// at any moment goes on with the first layer that is not whole. A layer's tensors are its commit:
// they are written last, after its ledger lines and the stream.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "ptq/activation_room.h"
#include "ptq/packed_tensors.h"

namespace tern::ptq {

class WorkFolder {
 public:
  // `job`: everything the result depends on. Throws InputError when `output` exists, or the partial
  // folder is of another job (with `discard_other` that is removed instead), ResourceError when
  // another process works in it.
  WorkFolder(const std::string& output, const nlohmann::json& job, bool discard_other = false);
  // Without a plan and a finished layer nothing is left behind.
  ~WorkFolder();
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;

  int64_t layers_done() const { return layers_done_; }
  // Of the layer before layers_done(), [B, T, D]. REQUIRES: layers_done() > 0, saved with one.
  at::Tensor Stream(const ActivationRoom& room) const;
  // `stream`: undefined when nothing is calibrated, else of `room`.
  void SaveLayer(int64_t layer, const std::vector<NamedTensor>& tensors,
                 const std::vector<nlohmann::json>& ledger, const at::Tensor& stream,
                 const ActivationRoom& room);

  std::string LayerFile(int64_t layer) const;
  std::string PlanFile() const;                // Of a job for a size: the types that were chosen
  std::vector<nlohmann::json> Ledger() const;  // Of all layers that are done
  const std::string& path() const { return path_; }
  // A tensor outside of the layers, kept until Finish; the file it is in. Each made anew by a
  // process that goes on.
  std::string SaveTensor(const NamedTensor& tensor) const;
  // Removes what belongs to the work alone and gives `folder`, inside path(), its final name.
  void Finish(const std::string& folder);

 private:
  std::string StreamFile(int64_t layer) const;
  std::string LedgerFile(int64_t layer) const;

  std::string output_, path_;
  std::optional<FileLock> lock_;
  int64_t layers_done_ = 0;
};

}  // namespace tern::ptq
