// See weight_table.h.
#include "engine/weight_table.h"

#include <charconv>

#include "base/error.h"

namespace tern::engine {
namespace {

struct NormPlace {
  const char* part;
  std::vector<float> LayerWeights::*member;
};
constexpr NormPlace kNorms[] = {{"input_layernorm", &LayerWeights::input_norm},
                                {"self_attn.q_norm", &LayerWeights::q_norm},
                                {"self_attn.k_norm", &LayerWeights::k_norm},
                                {"self_attn.attn_sub_norm", &LayerWeights::attn_sub_norm},
                                {"post_attention_layernorm", &LayerWeights::post_norm},
                                {"mlp.ffn_sub_norm", &LayerWeights::ffn_sub_norm}};
struct LinearPlace {
  const char* part;
  LinearMatrix LayerWeights::*member;
};
constexpr LinearPlace kLinears[] = {
    {"self_attn.q_proj", &LayerWeights::q}, {"self_attn.k_proj", &LayerWeights::k},
    {"self_attn.v_proj", &LayerWeights::v}, {"self_attn.o_proj", &LayerWeights::o},
    {"mlp.gate_proj", &LayerWeights::gate}, {"mlp.up_proj", &LayerWeights::up},
    {"mlp.down_proj", &LayerWeights::down}};

struct LayerName {
  size_t layer = 0;
  std::string part;  // "self_attn.q_proj"; empty for a name outside of the layers
};

LayerName Parse(const std::string& name) {
  constexpr std::string_view kPrefix = "model.layers.", kWeight = ".weight";
  if (!name.starts_with(kPrefix)) return {};
  LayerName out;
  const char* begin = name.data() + kPrefix.size();
  const char* end = std::from_chars(begin, name.data() + name.size(), out.layer).ptr;
  const size_t at = static_cast<size_t>(end - name.data()) + 1;
  out.part = name.substr(at, name.size() - at - kWeight.size());
  return out;
}

template <class Places>
auto Find(const Places& places, const std::string& part, const std::string& name) {
  for (const auto& place : places) {
    if (part == place.part) return place.member;
  }
  throw BugError(StrCat("no place for ", name));
}

}  // namespace

void FillWeights(const WeightSource& source, ModelWeights* weights) {
  weights->layers.resize(static_cast<size_t>(weights->config.num_layers));
  for (const ParameterSpec& spec : ParameterTable(weights->config)) {
    const LayerName name = Parse(spec.name);
    switch (spec.role) {
      case ParameterRole::kEmbedding:
        weights->embedding = source.table(spec);
        break;
      case ParameterRole::kHead:
        weights->head = source.table(spec);
        break;
      case ParameterRole::kLinear:
        weights->layers[name.layer].*Find(kLinears, name.part, spec.name) = source.linear(spec);
        break;
      case ParameterRole::kNorm:
        if (name.part.empty()) {
          weights->final_norm = source.norm(spec);
        } else {
          weights->layers[name.layer].*Find(kNorms, name.part, spec.name) = source.norm(spec);
        }
        break;
    }
  }
}

const std::vector<float>& NormOf(const ModelWeights& weights, const std::string& parameter_name) {
  const LayerName name = Parse(parameter_name);
  if (name.part.empty()) return weights.final_norm;
  return weights.layers.at(name.layer).*Find(kNorms, name.part, parameter_name);
}

const LinearMatrix& LinearOf(const ModelWeights& weights, const std::string& parameter_name) {
  const LayerName name = Parse(parameter_name);
  return weights.layers.at(name.layer).*Find(kLinears, name.part, parameter_name);
}

}  // namespace tern::engine
