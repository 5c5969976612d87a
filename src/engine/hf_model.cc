// See hf_model.h.
#include "engine/hf_model.h"

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "engine/gguf_model.h"
#include "engine/weight_table.h"
#include "formats/half.h"
#include "formats/hf_bitnet.h"
#include "formats/safetensors.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::engine {
namespace {

using formats::SafetensorsTensor;
using nlohmann::json;

enum class ScaleMeaning { kMultiply, kDivide };

class HfLoader {
 public:
  explicit HfLoader(const std::string& folder) : folder_(folder), tensors_(folder) {
    const std::string path = folder + "/config.json";
    try {
      config_ = json::parse(ReadFile(path));
    } catch (const json::exception& error) {
      throw FormatError(StrCat(path, ": not valid JSON: ", error.what()));
    }
  }

  ModelWeights Load() {
    ModelWeights weights;
    weights.source = folder_;
    ReadQuantization();
    weights.config = Config();
    FillWeights({[this](const ParameterSpec& spec) { return Floats(spec.name, spec.shape); },
                 [this](const ParameterSpec& spec) {
                   return DenseMatrix{Floats(spec.name, spec.shape), spec.shape[0], spec.shape[1]};
                 },
                 [this](const ParameterSpec& spec) { return Linear(spec); }},
                &weights);
    const std::string tokenizer = folder_ + "/tokenizer.model";
    if (std::filesystem::exists(tokenizer))
      weights.tokenizer = text::Tokenizer::FromFile(tokenizer);
    return weights;
  }

 private:
  template <class T>
  T Get(const json& object, const char* key) const {
    try {
      return object.at(key).get<T>();
    } catch (const json::exception& error) {
      throw FormatError(StrCat(folder_, "/config.json: ", key, ": ", error.what()));
    }
  }
  template <class T>
  T GetOr(const char* key, T fallback) const {
    return config_.contains(key) && !config_[key].is_null() ? Get<T>(config_, key) : fallback;
  }

  void ReadQuantization() {
    if (!config_.contains("quantization_config")) return;
    const json& q = config_["quantization_config"];
    const std::string method = Get<std::string>(q, "quant_method");
    TERN_CHECK_FORMAT(method == "bitnet", folder_, ": quant_method is ", method,
                      "; this version reads bitnet");
    const std::string mode = q.value("quantization_mode", std::string("offline"));
    TERN_CHECK_FORMAT(mode == "offline", folder_, ": quantization_mode is ", mode,
                      "; this version reads offline (packed)");
    const std::string linear_class = q.value("linear_class", std::string("bitlinear"));
    TERN_CHECK_FORMAT(
        linear_class == "bitlinear" || linear_class == "autobitlinear", folder_,
        ": linear_class is ", linear_class,
        "; want bitlinear or autobitlinear: the meaning of weight_scale depends on it");
    meaning_ = linear_class == "bitlinear" ? ScaleMeaning::kDivide : ScaleMeaning::kMultiply;
    packed_ = true;
    LogInfo(folder_, ": ", linear_class, ", so products are ",
            meaning_ == ScaleMeaning::kDivide ? "divided" : "multiplied", " by weight_scale");
  }

  ModelConfig Config() const {
    ModelConfig c;
    const std::string type = Get<std::string>(config_, "model_type");
    TERN_CHECK_FORMAT(type == "bitnet" || type == "llama" || type == "qwen3", folder_,
                      ": model_type is ", type, "; this version reads bitnet, llama and qwen3");
    c.vocab_size = Get<int64_t>(config_, "vocab_size");
    c.hidden_size = Get<int64_t>(config_, "hidden_size");
    c.intermediate_size = Get<int64_t>(config_, "intermediate_size");
    c.num_layers = Get<int64_t>(config_, "num_hidden_layers");
    c.num_heads = Get<int64_t>(config_, "num_attention_heads");
    c.num_kv_heads = GetOr<int64_t>("num_key_value_heads", c.num_heads);
    c.head_dim = GetOr<int64_t>("head_dim", 0);
    c.context_length = Get<int64_t>(config_, "max_position_embeddings");
    c.norm_eps = Get<float>(config_, "rms_norm_eps");
    c.rope_theta = config_.contains("rope_parameters")
                       ? Get<float>(config_["rope_parameters"], "rope_theta")
                       : Get<float>(config_, "rope_theta");
    const std::string act = Get<std::string>(config_, "hidden_act");
    TERN_CHECK_FORMAT(act == "silu" || act == "relu2", folder_, ": hidden_act is ", act,
                      "; want silu or relu2");
    c.activation = act == "silu" ? Activation::kSilu : Activation::kRelu2;
    c.sub_norms = type == "bitnet";
    c.qk_norm = type == "qwen3";
    c.tied_head = GetOr<bool>("tie_word_embeddings", false);
    c.linear = packed_ ? LinearKind::kBitLinear : LinearKind::kDense;
    try {
      ValidateModelConfig(c);
    } catch (const RecipeError& error) {
      throw FormatError(StrCat(folder_, "/config.json: ", error.what()));
    }
    return c;
  }

  std::vector<float> Floats(const std::string& name, const std::vector<int64_t>& shape) const {
    const SafetensorsTensor& tensor = tensors_.Get(name);
    TERN_CHECK_FORMAT(tensor.shape == shape, folder_, ": ", name,
                      " has another shape than config.json says");
    const size_t count =
        tensor.bytes.size() / static_cast<size_t>(formats::SafetensorsElementBytes(tensor.dtype));
    std::vector<float> values(count);
    if (tensor.dtype == "F32") {
      std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
      return values;
    }
    TERN_CHECK_FORMAT(tensor.dtype == "F16" || tensor.dtype == "BF16", folder_, ": ", name, " is ",
                      tensor.dtype, "; want F32, F16 or BF16");
    for (size_t i = 0; i < count; ++i) {
      uint16_t bits;
      std::memcpy(&bits, tensor.bytes.data() + 2 * i, sizeof bits);
      values[i] = tensor.dtype == "F16" ? formats::Fp16ToFp32(bits) : formats::Bf16ToFp32(bits);
    }
    return values;
  }

  LinearMatrix Linear(const ParameterSpec& spec) const {
    const int64_t n = spec.shape[0], k = spec.shape[1];
    if (!packed_) return DenseMatrix{Floats(spec.name, spec.shape), n, k};
    const SafetensorsTensor& tensor = tensors_.Get(spec.name);
    TERN_CHECK_FORMAT(tensor.dtype == "U8" && tensor.shape == (std::vector<int64_t>{n / 4, k}),
                      folder_, ": ", spec.name, " is no packed U8 [", n / 4, ", ", k, "]");
    const auto codes =
        formats::UnpackHfBitnet(reinterpret_cast<const uint8_t*>(tensor.bytes.data()), n, k);
    TernaryMatrix matrix;
    matrix.n = n;
    matrix.k = k;
    matrix.t2.resize(static_cast<size_t>(n * kernels::T2RowBytes(k)));
    for (int64_t row = 0; row < n; ++row) {
      kernels::PackT2Row(codes.data() + row * k, k,
                         matrix.t2.data() + row * kernels::T2RowBytes(k));
    }
    const float stored = Floats(spec.name + "_scale", {1}).at(0);
    TERN_CHECK_FORMAT(stored > 0, folder_, ": ", spec.name, "_scale is ", stored,
                      "; want a number above 0");
    matrix.scale = meaning_ == ScaleMeaning::kMultiply ? stored : 1.0f / stored;
    return matrix;
  }

  std::string folder_;
  formats::SafetensorsReader tensors_;
  json config_;
  bool packed_ = false;
  ScaleMeaning meaning_ = ScaleMeaning::kDivide;
};

}  // namespace

ModelWeights LoadHfFolder(const std::string& folder) { return HfLoader(folder).Load(); }

ModelWeights LoadModel(const std::string& path) {
  if (std::filesystem::is_directory(path)) {
    TERN_CHECK_INPUT(std::filesystem::exists(path + "/config.json"), path,
                     " is a folder without config.json; want a GGUF file or a Hugging Face folder");
    return LoadHfFolder(path);
  }
  return LoadGguf(path);
}

}  // namespace tern::engine
