// See model_config_json.h.
#include "arch/model_config_json.h"

#include <cstdint>
#include <set>
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

// Fields that came later, which are written only when they say something.
constexpr const char* kQkvBias = "qkv_bias";
constexpr const char* kRopeScaling = "rope_scaling";
constexpr const char* kWindows = "attention_windows";

template <class Enum>
Enum FromWord(const std::string& word, std::initializer_list<Enum> values, const char* field) {
  for (const Enum value : values) {
    if (ToString(value) == word) return value;
  }
  throw FormatError(
      StrCat("model config: ", field, " is \"", word, "\", which this version does not know"));
}

std::string WordOf(const nlohmann::json& value, const char* field) {
  TERN_CHECK_FORMAT(value.is_string(), "model config: ", field, " is ", value.dump(),
                    "; want a word");
  return value.get<std::string>();
}

void Assign(Activation& out, const nlohmann::json& value, const char* field) {
  out = FromWord(WordOf(value, field), {Activation::kSilu, Activation::kRelu2}, field);
}
void Assign(LinearKind& out, const nlohmann::json& value, const char* field) {
  out = FromWord(WordOf(value, field), {LinearKind::kDense, LinearKind::kBitLinear}, field);
}
void Assign(SubNorms& out, const nlohmann::json& value, const char* field) {
  if (value.is_boolean()) {  // Of the version that knew two placements
    out = value.get<bool>() ? SubNorms::kOutputs : SubNorms::kNone;
    return;
  }
  out = FromWord(
      WordOf(value, field),
      {SubNorms::kNone, SubNorms::kOutputs, SubNorms::kEveryLinear, SubNorms::kEveryLinearOnly},
      field);
}
// json's own get would turn 64.5 into 64 and true into 1.
void Assign(int64_t& out, const nlohmann::json& value, const char* field) {
  const bool fits = value.is_number_integer() &&
                    !(value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX});
  TERN_CHECK_FORMAT(fits, "model config: ", field, " is ", value.dump(), "; want a whole number");
  out = value.get<int64_t>();
}
void Assign(double& out, const nlohmann::json& value, const char* field) {
  TERN_CHECK_FORMAT(value.is_number(), "model config: ", field, " is ", value.dump(),
                    "; want a number");
  out = value.get<double>();
}
void Assign(float& out, const nlohmann::json& value, const char* field) {
  TERN_CHECK_FORMAT(value.is_number(), "model config: ", field, " is ", value.dump(),
                    "; want a number");
  out = value.get<float>();
}
void Assign(bool& out, const nlohmann::json& value, const char* field) {
  TERN_CHECK_FORMAT(value.is_boolean(), "model config: ", field, " is ", value.dump(),
                    "; want true or false");
  out = value.get<bool>();
}

// visit(name, member) of what a kind of scaling has.
template <class Scaling, class Visitor>
void VisitScaling(Scaling& s, const Visitor& visit) {
  if (s.kind == RopeScalingKind::kLinear || s.kind == RopeScalingKind::kLlama3)
    visit("factor", s.factor);
  if (s.kind == RopeScalingKind::kLlama3) {
    visit("low_freq_factor", s.low_freq_factor);
    visit("high_freq_factor", s.high_freq_factor);
    visit("original_context", s.original_context);
  }
}

void Assign(RopeScaling& out, const nlohmann::json& value, const char* field) {
  TERN_CHECK_FORMAT(value.is_object() && value.contains("type"), "model config: ", field, " is ",
                    value.dump(), "; want an object with a type");
  out.kind = FromWord(
      WordOf(value["type"], field),
      {RopeScalingKind::kLinear, RopeScalingKind::kLlama3, RopeScalingKind::kFactors}, field);
  std::set<std::string> known = {"type"};
  const auto has = [&](const char* name) {
    known.insert(name);
    TERN_CHECK_FORMAT(value.contains(name), "model config: ", field, " lacks ", name);
    return value[name];
  };
  VisitScaling(out, [&](const char* name, double& member) { Assign(member, has(name), name); });
  if (out.kind == RopeScalingKind::kFactors) {
    const nlohmann::json list = has("factors");
    TERN_CHECK_FORMAT(list.is_array(), "model config: factors of ", field, " is no list");
    for (const nlohmann::json& item : list) Assign(out.factors.emplace_back(), item, "factors");
  }
  for (const auto& item : value.items()) {
    TERN_CHECK_FORMAT(known.contains(item.key()), "model config: ", field, " has the field ",
                      item.key(), ", which this version does not know");
  }
}

void Assign(std::vector<int64_t>& out, const nlohmann::json& value, const char* field) {
  TERN_CHECK_FORMAT(value.is_array(), "model config: ", field, " is ", value.dump(),
                    "; want a list");
  for (const nlohmann::json& item : value) Assign(out.emplace_back(), item, field);
}

nlohmann::json ToJson(const RopeScaling& scaling) {
  nlohmann::json json = {{"type", ToString(scaling.kind)}};
  VisitScaling(scaling, [&](const char* name, double member) { json[name] = member; });
  if (scaling.kind == RopeScalingKind::kFactors) json["factors"] = scaling.factors;
  return json;
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
  if (config.qkv_bias) json[kQkvBias] = true;
  if (config.rope_scaling.kind != RopeScalingKind::kNone)
    json[kRopeScaling] = ToJson(config.rope_scaling);
  if (!config.attention_windows.empty()) json[kWindows] = config.attention_windows;
  return json;
}

ModelConfig ModelConfigFromJson(const nlohmann::json& json) {
  TERN_CHECK_FORMAT(json.is_object(), "model config is not an object");
  ModelConfig config;
  std::set<std::string> known;
  VisitFields(config, [&](const char* name, auto& member) {
    known.insert(name);
    TERN_CHECK_FORMAT(json.contains(name), "model config lacks ", name);
    Assign(member, json.at(name), name);
  });
  known.insert({kQkvBias, kRopeScaling, kWindows});
  if (json.contains(kQkvBias)) Assign(config.qkv_bias, json[kQkvBias], kQkvBias);
  if (json.contains(kRopeScaling)) Assign(config.rope_scaling, json[kRopeScaling], kRopeScaling);
  if (json.contains(kWindows)) Assign(config.attention_windows, json[kWindows], kWindows);
  for (const auto& item : json.items()) {
    TERN_CHECK_FORMAT(known.contains(item.key()), "model config has the field ", item.key(),
                      ", which this version does not know; it was written by another version");
  }
  return config;
}

}  // namespace tern
