// See adapters.h.
#include "qat/adapters.h"

#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "model/checkpoint_io.h"
#include "qat/layer_rules.h"

namespace tern::qat {

void Adapters::Add(const ParameterSpec& spec, int64_t rank, double scale,
                   const at::Device& device) {
  const auto parameter = [&](const char* kind, std::vector<int64_t> shape) {
    at::Tensor value = at::zeros(shape, at::TensorOptions(at::kFloat).device(device));
    value.set_requires_grad(true);
    return model::Parameter{{kind + spec.name, std::move(shape), ParameterRole::kLinear},
                            std::move(value)};
  };
  pairs_.emplace(spec.name, Pair{parameter("lora_a.", {rank, spec.shape[1]}),
                                 parameter("lora_b.", {spec.shape[0], rank}), scale});
}

Adapters::Adapters(const recipe::LoraConfig& config, const ModelConfig& model,
                   const std::string& stage_id, uint64_t seed, const at::Device& device) {
  if (config.rank == 0) return;
  const double scale = config.alpha / static_cast<double>(config.rank);
  for (const ParameterSpec& spec : MatchLayers(config.layers, model, stage_id + ".lora.layers")) {
    if (pairs_.contains(spec.name)) continue;
    Add(spec, config.rank, scale, device);
    const at::Tensor& a_RK = pairs_.at(spec.name).a_RK.value;
    RandomStream stream(seed, "init/" + pairs_.at(spec.name).a_RK.spec.name);
    const float bound = 1.0f / std::sqrt(static_cast<float>(spec.shape[1]));
    model::FillThroughHost(a_RK, [&](void* data) {
      for (int64_t i = 0; i < a_RK.numel(); ++i)
        static_cast<float*>(data)[i] = bound * (2.0f * stream.NextUniform() - 1.0f);
    });
  }
}

Adapters::Adapters(const nlohmann::json& stored, const checkpoint::CheckpointReader& reader,
                   const model::Decoder& decoder) {
  for (const model::Parameter& parameter : decoder.parameters()) {
    const auto found = stored.find(parameter.spec.name);
    if (found == stored.end()) continue;
    try {
      Add(parameter.spec, found->at("rank").get<int64_t>(), found->at("scale").get<double>(),
          at::kCPU);
    } catch (const nlohmann::json::exception& error) {
      throw FormatError(
          StrCat(reader.folder(), ": adapter of ", parameter.spec.name, ": ", error.what()));
    }
    const Pair& pair = pairs_.at(parameter.spec.name);
    for (const model::Parameter* p : {&pair.a_RK, &pair.b_NR})
      model::ReadInto(reader, StrCat(kExtraGroup, p->spec.name), p->value);
  }
}

std::vector<std::string> Adapters::names() const {
  std::vector<std::string> names;
  for (const auto& [name, pair] : pairs_) names.push_back(name);
  return names;
}

std::vector<model::Parameter> Adapters::parameters() const {
  std::vector<model::Parameter> all;
  for (const auto& [name, pair] : pairs_) {
    all.push_back(pair.a_RK);
    all.push_back(pair.b_NR);
  }
  return all;
}

at::Tensor Adapters::Merged(const std::string& parameter, const at::Tensor& w_NK) const {
  const auto found = pairs_.find(parameter);
  if (found == pairs_.end()) return w_NK;
  const Pair& pair = found->second;
  return w_NK + pair.scale * at::matmul(pair.b_NR.value, pair.a_RK.value);
}

nlohmann::json Adapters::ToJson() const {
  nlohmann::json json = nlohmann::json::object();
  for (const auto& [name, pair] : pairs_)
    json[name] = {{"rank", pair.a_RK.value.size(0)}, {"scale", pair.scale}};
  return json;
}

}  // namespace tern::qat
