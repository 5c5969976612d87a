// See layer_tensors.h.
#include "engine/layer_tensors.h"

#include "base/error.h"
#include "engine/hf_quantization.h"

namespace tern::engine {

LayerTensors::LayerTensors(const formats::SafetensorsReader& tensors, const ParameterSpec& spec,
                           const std::string& folder, std::set<std::string>* used)
    : tensors_(tensors),
      base_(spec.name.substr(0, spec.name.size() - std::string("weight").size())),
      folder_(folder),
      used_(used) {}

const formats::SafetensorsTensor& LayerTensors::Take(const std::string& part,
                                                     const std::string& dtype,
                                                     const std::vector<int64_t>& shape) const {
  const formats::SafetensorsTensor& tensor = Get(part);
  TERN_CHECK_FORMAT(tensor.dtype == dtype && tensor.shape == shape, folder_, ": ", Name(part),
                    " is ", tensor.dtype, " ", ShapeText(tensor.shape), "; want ", dtype, " ",
                    ShapeText(shape));
  Skip(part);
  return tensor;
}

}  // namespace tern::engine
