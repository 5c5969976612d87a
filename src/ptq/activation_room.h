// Where the activations of the calibration lie while a model is quantized: in memory, or in files
// that are mapped, of which a sequence at a time is in memory. The numbers are the same.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace tern::ptq {

class ActivationRoom {
 public:
  // In memory; or in files of `folder` that have no name, so that nothing is left of them however
  // the process ends.
  ActivationRoom() = default;
  explicit ActivationRoom(std::string folder) : folder_(std::move(folder)) {}

  bool OnDisk() const { return !folder_.empty(); }
  // fp32, contents undefined. Throws ResourceError when the disk has no room for it.
  at::Tensor New(const std::vector<int64_t>& shape) const;
  // Gives back the memory of a tensor of New, or of a contiguous part of one, whose numbers stay in
  // the file; nothing for one in memory.
  void Drop(const at::Tensor& part) const;

 private:
  std::string folder_;
};

}  // namespace tern::ptq
