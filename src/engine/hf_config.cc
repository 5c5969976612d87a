// See hf_config.h. The defaults of missing keys are those of the classes of transformers.
#include "engine/hf_config.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string_view>

#include "engine/json_fields.h"

namespace tern::engine {
namespace {

using nlohmann::json;

constexpr int64_t kDefaultWindow = 4096;  // Of a config.json without the key
constexpr int64_t kQwenFullLayers = 28;   // Of one without max_window_layers
constexpr float kLlamaTheta = 10000;      // Of llama files of 2023, which lack rope_theta

class Reader {
 public:
  Reader(const json& object, const std::string& path, const HfTensorFacts& facts)
      : json_(object), fields_(object, path), type_(fields_.Get<std::string>("model_type")) {
    out_.linear = facts.linear;
    out_.sub_norms = facts.sub_norms;
  }

  ModelConfig Read() {
    TERN_CHECK_FORMAT(type_ == "bitnet" || type_ == "llama" || type_ == "mistral" ||
                          type_ == "qwen2" || type_ == "qwen3",
                      Where(), ": model_type is ", type_,
                      "; this version reads bitnet, llama, mistral, qwen2 and qwen3");
    ModelConfig& c = out_;
    c.vocab_size = Int("vocab_size");
    c.hidden_size = Int("hidden_size");
    c.intermediate_size = Int("intermediate_size");
    c.num_layers = Int("num_hidden_layers");
    c.num_heads = Int("num_attention_heads");
    c.num_kv_heads = fields_.GetOr<int64_t>("num_key_value_heads", c.num_heads);
    c.head_dim = fields_.GetOr<int64_t>("head_dim", 0);
    c.context_length = Int("max_position_embeddings");
    c.norm_eps = fields_.Get<float>("rms_norm_eps");
    const std::string act = fields_.Get<std::string>("hidden_act");
    TERN_CHECK_FORMAT(act == "silu" || act == "relu2", Where(), ": hidden_act is ", act,
                      "; want silu or relu2");
    c.activation = act == "silu" ? Activation::kSilu : Activation::kRelu2;
    CheckSubNorms();
    c.qk_norm = type_ == "qwen3";
    c.tied_head = fields_.GetOr<bool>("tie_word_embeddings", false);
    c.qkv_bias = type_ == "qwen2";
    RefuseOthers();
    ReadRopeTheta();
    try {
      ValidateModelConfig(c);
    } catch (const RecipeError& error) {
      throw FormatError(StrCat(Where(), ": ", error.what()));
    }
    ReadRopeScaling();
    ReadWindows();
    return out_;
  }

 private:
  const std::string& Where() const { return fields_.where(); }
  int64_t Int(const char* key) const { return fields_.Get<int64_t>(key); }

  // bitnet has them before o_proj and down_proj; the first repositories did so under the name
  // llama. Of every linear layer's own (BitLinear with use_rms_norm) any other class has.
  void CheckSubNorms() const {
    TERN_CHECK_FORMAT(type_ != "bitnet" || !out_.HasInputNorms(), Where(),
                      ": use_rms_norm of quantization_config is true and model_type bitnet, which "
                      "has norms of its own before o_proj and down_proj; this version runs one of "
                      "them");
    const bool outputs = out_.sub_norms == SubNorms::kOutputs;
    TERN_CHECK_FORMAT(outputs == (type_ == "bitnet") || (type_ == "llama" && outputs), Where(),
                      ": model_type is ", type_, " and the tensors have ", outputs ? "" : "no ",
                      "norms before o_proj and down_proj");
  }

  void RefuseOthers() const {
    for (const char* key : {"attention_bias", "mlp_bias"}) {
      TERN_CHECK_FORMAT(!fields_.GetOr<bool>(key, false), Where(), ": ", key,
                        " is true; this version runs models without it");
    }
    for (const char* key : {"num_experts", "num_local_experts", "n_routed_experts"}) {
      const int64_t experts = fields_.GetOr<int64_t>(key, 0);
      TERN_CHECK_FORMAT(experts == 0, Where(), ": ", key, " is ", experts,
                        "; this version runs models without experts");
    }
    const double rotary = fields_.GetOr<double>("partial_rotary_factor", 1);
    TERN_CHECK_FORMAT(rotary == 1, Where(), ": partial_rotary_factor is ", rotary, "; want 1");
    if (!fields_.Has("layer_types")) return;
    TERN_CHECK_FORMAT(json_["layer_types"].is_array(), Where(), ": layer_types is no list");
    for (const json& type : json_["layer_types"]) {
      TERN_CHECK_FORMAT(type == "full_attention" || (type == "sliding_attention" && Window() > 0),
                        Where(), ": layer_types has ", type.dump(),
                        "; this version runs full_attention, and sliding_attention with a window");
    }
    TERN_CHECK_FORMAT(static_cast<int64_t>(json_["layer_types"].size()) == Int("num_hidden_layers"),
                      Where(), ": layer_types has ", json_["layer_types"].size(),
                      " entries; want one for each of the layers, ", Int("num_hidden_layers"));
  }

  // Above 0: a token sees this many tokens, itself included, in some layers or in all.
  int64_t Window() const {
    if (type_ == "qwen2" || type_ == "qwen3") {
      if (!fields_.GetOr<bool>("use_sliding_window", false)) return 0;
    } else if (type_ != "mistral") {
      TERN_CHECK_FORMAT(!fields_.GetOr<bool>("use_sliding_window", false), Where(),
                        ": use_sliding_window is true, which a ", type_, " model does not know");
      return 0;
    }
    if (!json_.contains("sliding_window")) return kDefaultWindow;
    if (!fields_.Has("sliding_window")) return 0;  // Null
    const int64_t window = Int("sliding_window");
    TERN_CHECK_FORMAT(window > 0, Where(), ": sliding_window is ", window, "; want 1 or more");
    return window;
  }

  // transformers lets all layers of Mistral slide, and those of Qwen that layer_types names;
  // without it, those from max_window_layers on.
  void ReadWindows() {
    const int64_t window = Window();
    if (window == 0 || window >= out_.context_length) return;
    const bool listed = fields_.Has("layer_types");
    const int64_t full = fields_.GetOr<int64_t>("max_window_layers", kQwenFullLayers);
    for (int64_t layer = 0; layer < out_.num_layers; ++layer) {
      const bool slides = listed
                              ? json_["layer_types"][static_cast<size_t>(layer)] != "full_attention"
                              : type_ == "mistral" || layer >= full;
      TERN_CHECK_FORMAT(slides || type_ != "mistral", Where(), ": layer_types has full_attention, ",
                        "which a mistral model with a sliding_window does not know");
      out_.attention_windows.push_back(slides ? window : 0);
    }
    out_.attention_windows = WindowsWithin(out_.attention_windows, out_.context_length);
  }

  // transformers 5 writes rope_parameters, earlier ones rope_theta and, when scaled, rope_scaling.
  // Null when there is neither.
  const char* RopeKey() const {
    if (fields_.Has("rope_parameters")) return "rope_parameters";
    return fields_.Has("rope_scaling") ? "rope_scaling" : nullptr;
  }

  void ReadRopeTheta() {
    float& theta = out_.rope_theta;
    if (fields_.Has("rope_parameters")) {
      theta = JsonFields(json_["rope_parameters"], Where()).Get<float>("rope_theta");
    } else if (type_ == "llama" && !json_.contains("rope_theta")) {
      theta = kLlamaTheta;
    } else {
      theta = fields_.Get<float>("rope_theta");
    }
  }

  static std::string RopeType(const JsonFields& rope) {
    return rope.GetOr<std::string>("rope_type", rope.GetOr<std::string>("type", "default"));
  }

  void ReadRopeScaling() {
    const char* key = RopeKey();
    if (key == nullptr) return;
    const JsonFields rope(json_[key], Where());
    const std::string type = RopeType(rope);
    if (fields_.Has("rope_scaling")) {
      const std::string other = RopeType(JsonFields(json_["rope_scaling"], Where()));
      TERN_CHECK_FORMAT(other == type, Where(), ": rope_parameters says ", type,
                        " and rope_scaling ", other, "; want one of them");
    }
    std::set<std::string_view> known = {"rope_type", "type", "rope_theta"};
    const auto positive = [&](const char* name) {
      known.insert(name);
      const double value = rope.Get<double>(name);
      TERN_CHECK_FORMAT(value > 0 && std::isfinite(value), Where(), ": ", name, " of ", key, " is ",
                        value, "; want above 0");
      return value;
    };
    RopeScaling& scaling = out_.rope_scaling;
    if (type == "linear") {
      scaling = {RopeScalingKind::kLinear, positive("factor")};
    } else if (type == "llama3") {
      scaling = {RopeScalingKind::kLlama3, positive("factor"), positive("low_freq_factor"),
                 positive("high_freq_factor"), positive("original_max_position_embeddings")};
      TERN_CHECK_FORMAT(scaling.high_freq_factor > scaling.low_freq_factor, Where(),
                        ": high_freq_factor is ", scaling.high_freq_factor, "; want above ",
                        scaling.low_freq_factor, ", the low_freq_factor");
    } else {
      TERN_CHECK_FORMAT(type == "default", Where(), ": the rope_type of ", key, " is ", type,
                        "; this version runs default, linear and llama3");
    }
    for (const auto& item : json_[key].items()) {
      if (item.key() == "partial_rotary_factor" && item.value() == 1.0) continue;
      TERN_CHECK_FORMAT(known.contains(item.key()), Where(), ": ", item.key(), " of ", key, " is ",
                        item.value().dump(), "; a rope_type of ", type, " has no such key here");
    }
  }

  const json& json_;
  JsonFields fields_;
  std::string type_;
  ModelConfig out_;
};

}  // namespace

ModelConfig ReadHfConfig(const nlohmann::json& json, const std::string& path,
                         const HfTensorFacts& facts) {
  return Reader(json, path, facts).Read();
}

}  // namespace tern::engine
