// See checkpoint_io.h.
#include "model/checkpoint_io.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "arch/model_config_json.h"
#include "base/error.h"

namespace tern::model {
namespace {

std::string DatasetName(const Parameter& parameter) {
  return StrCat(checkpoint::kModelGroup, parameter.spec.name);
}

const nlohmann::json& ModelJson(const checkpoint::CheckpointReader& reader) {
  const auto found = reader.meta().state.find("model");
  TERN_CHECK_FORMAT(
      found != reader.meta().state.end(), reader.folder(),
      " does not say which model it holds (state.model); it was not written by tern's trainer");
  return *found;
}

}  // namespace

checkpoint::TensorView ViewOf(const std::string& name, const at::Tensor& tensor) {
  TERN_CHECK(
      tensor.is_contiguous() && tensor.device().is_cpu() && tensor.scalar_type() == at::kFloat,
      name);
  return {name, h5::Type::kF32, tensor.sizes().vec(), tensor.const_data_ptr()};
}

void FillThroughHost(at::Tensor tensor, const std::function<void(void* data)>& fill) {
  if (tensor.device().is_cpu()) return fill(tensor.data_ptr());
  const at::NoGradGuard no_grad;
  const at::Tensor host = at::empty(tensor.sizes(), tensor.options().device(at::kCPU));
  fill(host.data_ptr());
  tensor.copy_(host);
}

void ReadInto(const checkpoint::CheckpointReader& reader, const std::string& name,
              const at::Tensor& tensor) {
  TERN_CHECK(tensor.is_contiguous() && tensor.scalar_type() == at::kFloat, name);
  FillThroughHost(
      tensor, [&](void* data) { reader.Read(name, h5::Type::kF32, tensor.sizes().vec(), data); });
}

ModelConfig ConfigOf(const checkpoint::CheckpointReader& reader) {
  return ModelConfigFromJson(ModelJson(reader));
}

Decoder LoadDecoder(const checkpoint::CheckpointReader& reader) {
  Decoder decoder(ConfigOf(reader));
  for (const Parameter& parameter : decoder.parameters())
    ReadInto(reader, DatasetName(parameter), parameter.value);
  return decoder;
}

void CheckModel(const checkpoint::CheckpointReader& reader, const ModelConfig& config) {
  const nlohmann::json want = ToJson(config);
  const nlohmann::json& found = ModelJson(reader);
  std::string differences;
  for (const auto& [key, value] : want.items()) {
    const std::string other = found.contains(key) ? found.at(key).dump() : "nothing";
    if (other != value.dump())
      differences += StrCat("\n  ", key, ": checkpoint ", other, ", recipe ", value.dump());
  }
  TERN_CHECK_INPUT(differences.empty(), reader.folder(),
                   " holds another model than the recipe's:", differences,
                   "\nGive this run another name (name=...), or restore the recipe's model.");
}

}  // namespace tern::model
