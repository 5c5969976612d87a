// See hf_model.h.
#include "engine/hf_model.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "engine/gguf_model.h"
#include "engine/hf_config.h"
#include "engine/json_fields.h"
#include "engine/weight_table.h"
#include "formats/half.h"
#include "formats/hf_bitnet.h"
#include "formats/safetensors.h"
#include "formats/strict_json.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::engine {
namespace {

using formats::SafetensorsTensor;
using nlohmann::json;

enum class ScaleMeaning { kMultiply, kDivide };

class HfLoader {
 public:
  explicit HfLoader(const std::string& folder) : folder_(folder), tensors_(folder) {
    config_ = formats::ParseStrictJson(ReadFile(ConfigPath()), ConfigPath());
  }

  ModelWeights Load() {
    ModelWeights weights;
    weights.source = folder_;
    ReadQuantization();
    const HfConfig shape =
        ReadHfConfig(config_, ConfigPath(), packed_ ? LinearKind::kBitLinear : LinearKind::kDense);
    weights.config = shape.config;
    weights.extras = shape.extras;
    FillWeights({[this](const ParameterSpec& spec) { return Floats(spec.name, spec.shape); },
                 [this](const ParameterSpec& spec) {
                   return DenseMatrix{Floats(spec.name, spec.shape), spec.shape[0], spec.shape[1]};
                 },
                 [this](const ParameterSpec& spec) { return Linear(spec); }},
                &weights);
    CheckAllUsed(weights.config);
    const std::string tokenizer = folder_ + "/tokenizer.model";
    if (std::filesystem::exists(tokenizer)) {
      weights.tokenizer = text::Tokenizer::FromFile(tokenizer);
    } else {
      LogWarn(folder_, " has no tokenizer.model, the only kind of tokenizer this version reads");
    }
    return weights;
  }

 private:
  std::string ConfigPath() const { return folder_ + "/config.json"; }

  void ReadQuantization() {
    if (!config_.is_object() || !config_.contains("quantization_config")) return;
    const std::string where = ConfigPath();
    const JsonFields q(config_["quantization_config"], where);
    const std::string method = q.Get<std::string>("quant_method");
    TERN_CHECK_FORMAT(method == "bitnet", folder_, ": quant_method is ", method,
                      "; this version reads bitnet");
    const std::string mode = q.GetOr<std::string>("quantization_mode", "offline");
    TERN_CHECK_FORMAT(mode == "offline", folder_, ": quantization_mode is ", mode,
                      "; this version reads offline (packed)");
    const std::string linear_class = q.GetOr<std::string>("linear_class", "bitlinear");
    TERN_CHECK_FORMAT(
        linear_class == "bitlinear" || linear_class == "autobitlinear", folder_,
        ": linear_class is ", linear_class,
        "; want bitlinear or autobitlinear: the meaning of weight_scale depends on it");
    TERN_CHECK_FORMAT(!q.GetOr<bool>("use_rms_norm", false), folder_,
                      ": use_rms_norm is true; this version runs BitLinear without a norm inside");
    meaning_ = linear_class == "bitlinear" ? ScaleMeaning::kDivide : ScaleMeaning::kMultiply;
    packed_ = true;
    LogInfo(folder_, ": ", linear_class, ", so products are ",
            meaning_ == ScaleMeaning::kDivide ? "divided" : "multiplied", " by weight_scale");
  }

  const SafetensorsTensor& Take(const std::string& name) {
    used_.insert(name);
    return tensors_.Get(name);
  }

  // A bias that is read by nobody would make another model of this one. transformers, too, skips
  // the copy of a tied head and the buffers of old rotary embeddings.
  void CheckAllUsed(const ModelConfig& config) const {
    for (const auto& [name, tensor] : tensors_.tensors()) {
      const bool skipped =
          (config.tied_head && name == "lm_head.weight") || name.ends_with("rotary_emb.inv_freq");
      TERN_CHECK_FORMAT(skipped || used_.contains(name), folder_, ": the tensor ", name,
                        " has no place in the model that config.json describes");
    }
  }

  std::vector<float> Floats(const std::string& name, const std::vector<int64_t>& shape) {
    const SafetensorsTensor& tensor = Take(name);
    TERN_CHECK_FORMAT(tensor.shape == shape, folder_, ": ", name,
                      " has another shape than config.json says");
    const size_t count =
        tensor.bytes.size() / static_cast<size_t>(formats::SafetensorsElementBytes(tensor.dtype));
    std::vector<float> values(count);
    const bool half = tensor.dtype == "F16";
    TERN_CHECK_FORMAT(half || tensor.dtype == "BF16" || tensor.dtype == "F32", folder_, ": ", name,
                      " is ", tensor.dtype, "; want F32, F16 or BF16");
    if (tensor.dtype == "F32") {
      std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    } else {
      for (size_t i = 0; i < count; ++i) {
        uint16_t bits;
        std::memcpy(&bits, tensor.bytes.data() + 2 * i, sizeof bits);
        values[i] = half ? formats::Fp16ToFp32(bits) : formats::Bf16ToFp32(bits);
      }
    }
    CheckFinite(values, StrCat(folder_, ": ", name));
    return values;
  }

  LinearMatrix Linear(const ParameterSpec& spec) {
    const int64_t n = spec.shape[0], k = spec.shape[1];
    if (!packed_) return DenseMatrix{Floats(spec.name, spec.shape), n, k};
    const SafetensorsTensor& tensor = Take(spec.name);
    TERN_CHECK_FORMAT(
        n % 4 == 0 && tensor.dtype == "U8" && tensor.shape == (std::vector<int64_t>{n / 4, k}),
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
  std::set<std::string> used_;  // Tensors that have found their place
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
