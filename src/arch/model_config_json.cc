// See model_config_json.h.
#include "arch/model_config_json.h"

#include <string>

#include "base/error.h"

namespace tern {
namespace {

// One list of fields for both directions: visit(name, member).
template <class Config, class Visitor>
void VisitFields(Config& c, const Visitor& visit) {
  visit("vocab_size", c.vocab_size);
  visit("hidden_size", c.hidden_size);
  visit("intermediate_size", c.intermediate_size);
  visit("num_layers", c.num_layers);
  visit("num_heads", c.num_heads);
  visit("num_kv_heads", c.num_kv_heads);
  visit("head_dim", c.head_dim);
  visit("context_length", c.context_length);
  visit("rope_theta", c.rope_theta);
  visit("norm_eps", c.norm_eps);
  visit("activation", c.activation);
  visit("linear", c.linear);
  visit("sub_norms", c.sub_norms);
  visit("qk_norm", c.qk_norm);
  visit("tied_head", c.tied_head);
  visit("init_std", c.init_std);
}

template <class Enum>
Enum FromWord(const std::string& word, std::initializer_list<Enum> values, const char* field) {
  for (const Enum value : values) {
    if (ToString(value) == word) return value;
  }
  throw FormatError(
      StrCat("model config: ", field, " is \"", word, "\", which this version does not know"));
}

void Assign(Activation& out, const nlohmann::json& value, const char* field) {
  out = FromWord(value.get<std::string>(), {Activation::kSilu, Activation::kRelu2}, field);
}
void Assign(LinearKind& out, const nlohmann::json& value, const char* field) {
  out = FromWord(value.get<std::string>(), {LinearKind::kDense, LinearKind::kBitLinear}, field);
}
template <class T>
void Assign(T& out, const nlohmann::json& value, const char*) {
  out = value.get<T>();
}

}  // namespace

nlohmann::json ToJson(const ModelConfig& config) {
  nlohmann::json json;
  VisitFields(config, [&](const char* name, const auto& member) {
    if constexpr (requires { ToString(member); }) {
      json[name] = ToString(member);
    } else {
      json[name] = member;
    }
  });
  return json;
}

ModelConfig ModelConfigFromJson(const nlohmann::json& json) {
  TERN_CHECK_FORMAT(json.is_object(), "model config is not an object");
  ModelConfig config;
  size_t fields = 0;
  VisitFields(config, [&](const char* name, auto& member) {
    ++fields;
    TERN_CHECK_FORMAT(json.contains(name), "model config lacks ", name);
    try {
      Assign(member, json.at(name), name);
    } catch (const nlohmann::json::exception& error) {
      throw FormatError(StrCat("model config: ", name, ": ", error.what()));
    }
  });
  TERN_CHECK_FORMAT(json.size() == fields, "model config has ", json.size(),
                    " fields, this version knows ", fields, "; it was written by another version");
  return config;
}

}  // namespace tern
