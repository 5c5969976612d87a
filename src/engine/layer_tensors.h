// The tensors that make up one quantized matrix in a folder: "model.layers.0.mlp.up_proj." and the
// name of a part (weight_packed, weight_scale, qweight, ...).
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "arch/model_config.h"
#include "formats/safetensors.h"

namespace tern::engine {

class LayerTensors {
 public:
  // Both are held by reference. `used` gets the names of what was taken.
  LayerTensors(const formats::SafetensorsReader& tensors, const ParameterSpec& spec,
               const std::string& folder, std::set<std::string>* used);

  const formats::SafetensorsReader& reader() const { return tensors_; }
  const std::string& folder() const { return folder_; }
  std::string Name(const std::string& part) const { return base_ + part; }
  bool Has(const std::string& part) const { return tensors_.tensors().contains(Name(part)); }
  // Throws FormatError when it is missing.
  const formats::SafetensorsTensor& Get(const std::string& part) const {
    return tensors_.Get(Name(part));
  }
  // And marks it as used. Throws FormatError (file, name, found, wanted) for another type or shape.
  const formats::SafetensorsTensor& Take(const std::string& part, const std::string& dtype,
                                         const std::vector<int64_t>& shape) const;
  // Of a part that is there and not read.
  void Skip(const std::string& part) const { used_->insert(Name(part)); }

 private:
  const formats::SafetensorsReader& tensors_;
  const std::string base_;
  const std::string& folder_;
  std::set<std::string>* used_;
};

}  // namespace tern::engine
