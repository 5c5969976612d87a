// See hf_export.h. Values whose defaults in transformers are wrong for us are written out
// (hidden_act, tied head, rotary base, dtype).
#include "transfer/hf_export.h"

#include <deque>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "formats/half.h"
#include "formats/hf_bitnet.h"
#include "formats/safetensors.h"
#include "quant/ternary.h"

namespace tern::transfer {
namespace {

using nlohmann::json;

struct HfArch {
  const char* model_type;
  const char* class_name;
};

HfArch ArchOf(const ModelConfig& config) {
  switch (ChooseHfArch(config).name) {
    case ArchName::kLlama:
      return {"llama", "LlamaForCausalLM"};
    case ArchName::kQwen3:
      return {"qwen3", "Qwen3ForCausalLM"};
    case ArchName::kBitnet:
    case ArchName::kBitnet158:
      return {"bitnet", "BitNetForCausalLM"};
    case ArchName::kQwen2:
      return {"qwen2", "Qwen2ForCausalLM"};
    case ArchName::kNone:
      break;
  }
  throw RecipeError(ChooseHfArch(config).reason);
}

bool DividesByScale(const std::string& format) { return format == "hf/bitnet"; }

// rope_parameters of transformers 5; earlier versions read rope_theta and rope_scaling beside it.
json RopeParameters(const ModelConfig& c) {
  const RopeScaling& s = c.rope_scaling;
  switch (s.kind) {
    case RopeScalingKind::kNone:
      return {{"rope_type", "default"}, {"rope_theta", c.rope_theta}};
    case RopeScalingKind::kLinear:
      return {{"rope_type", "linear"}, {"rope_theta", c.rope_theta}, {"factor", s.factor}};
    case RopeScalingKind::kLlama3:
      return {{"rope_type", "llama3"},
              {"rope_theta", c.rope_theta},
              {"factor", s.factor},
              {"low_freq_factor", s.low_freq_factor},
              {"high_freq_factor", s.high_freq_factor},
              {"original_max_position_embeddings", static_cast<int64_t>(s.original_context)}};
    case RopeScalingKind::kFactors:
      break;
  }
  throw BugError("format_rules.cc lets no factors of their own through");
}

const char* DtypeOf(const std::string& format) {
  if (format == "hf/bf16") return "bfloat16";
  return format == "hf/f16" ? "float16" : "float32";
}

}  // namespace

json HfConfigJson(const ModelConfig& c, const std::string& dtype) {
  const HfArch arch = ArchOf(c);
  return {{"architectures", {arch.class_name}},
          {"model_type", arch.model_type},
          {"vocab_size", c.vocab_size},
          {"hidden_size", c.hidden_size},
          {"intermediate_size", c.intermediate_size},
          {"num_hidden_layers", c.num_layers},
          {"num_attention_heads", c.num_heads},
          {"num_key_value_heads", c.num_kv_heads},
          {"head_dim", c.HeadDim()},
          {"max_position_embeddings", c.context_length},
          {"rms_norm_eps", c.norm_eps},
          {"rope_theta", c.rope_theta},
          {"rope_parameters", RopeParameters(c)},
          {"hidden_act", ToString(c.activation)},
          {"tie_word_embeddings", c.tied_head},
          {"initializer_range", c.init_std},
          {"attention_bias", false},
          {"dtype", dtype}};
}

namespace {

json ConfigJson(const ModelConfig& c, const std::string& format) {
  json config = HfConfigJson(c, DtypeOf(format));
  if (c.linear == LinearKind::kBitLinear) {
    config["quantization_config"] = {
        {"quant_method", "bitnet"},
        {"linear_class", DividesByScale(format) ? "bitlinear" : "autobitlinear"},
        {"quantization_mode", "offline"},
        {"modules_to_not_convert", {"lm_head"}}};
    if (c.HasInputNorms()) {
      config["quantization_config"]["use_rms_norm"] = true;
      config["quantization_config"]["rms_norm_eps"] = c.norm_eps;
    }
  }
  return config;
}

// Owns what the safetensors writer points at.
class TensorStore {
 public:
  void AddFloats(const std::string& name, const at::Tensor& value, const std::string& format) {
    const bool bf16 = format == "hf/bf16";
    if (!bf16 && format != "hf/f16") {
      writer_.Add(name, "F32", value.sizes().vec(), value.const_data_ptr());
      return;
    }
    auto& bits = halves_.emplace_back(static_cast<size_t>(value.numel()));
    for (size_t i = 0; i < bits.size(); ++i) {
      const float x = value.const_data_ptr<float>()[i];
      bits[i] = bf16 ? formats::Fp32ToBf16(x) : formats::Fp32ToFp16(x);
    }
    writer_.Add(name, bf16 ? "BF16" : "F16", value.sizes().vec(), bits.data());
  }

  void AddTernary(const std::string& name, const at::Tensor& latent_NK, bool divides) {
    const quant::TernaryWeight w = quant::QuantizeTernary(latent_NK);
    const at::Tensor codes_NK = quant::Dequantize(w, 1.0f).to(at::kChar);
    const int8_t* codes = codes_NK.const_data_ptr<int8_t>();
    const int64_t n = latent_NK.size(0), k = latent_NK.size(1);
    packed_.push_back(formats::PackHfBitnet(std::vector<int8_t>(codes, codes + n * k), n, k));
    writer_.Add(name, "U8", {n / 4, k}, packed_.back().data());
    scales_.push_back(divides ? 1.0f / w.beta : w.beta);
    writer_.Add(name + "_scale", "F32", {1}, &scales_.back());
  }

  void Write(const std::string& path) const { writer_.Write(path); }

 private:
  formats::SafetensorsWriter writer_;
  std::deque<std::vector<uint16_t>> halves_;
  std::deque<std::vector<uint8_t>> packed_;
  std::deque<float> scales_;
};

std::string Pretty(const json& value) { return value.dump(2) + "\n"; }

void AddTokenizerFiles(const text::Tokenizer& tokenizer, int64_t context_length,
                       std::map<std::string, std::string>* files) {
  const bool json_bpe = tokenizer.table().kind == text::ModelKind::kJsonBpe;
  if (!json_bpe) (*files)["tokenizer.model"] = tokenizer.serialized();
  (*files)["tokenizer.json"] = json_bpe ? tokenizer.serialized() : TokenizerJson(tokenizer);
  json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"clean_up_tokenization_spaces", false},
                 {"model_max_length", context_length}};
  for (const auto& [key, id] : {std::pair("bos_token", tokenizer.bos_id()),
                                {"eos_token", tokenizer.eos_id()},
                                {"unk_token", tokenizer.unk_id()}})
    if (id >= 0) config[key] = tokenizer.piece(id);
  (*files)["tokenizer_config.json"] = Pretty(config);
}

// Of config.json and generation_config.json.
json EndsOf(const text::Tokenizer& tokenizer) {
  json ends = json::object();
  for (const auto& [key, id] :
       {std::pair("bos_token_id", tokenizer.bos_id()), {"eos_token_id", tokenizer.eos_id()}})
    if (id >= 0) ends[key] = id;
  return ends;
}

}  // namespace

void WriteHfFolder(const model::Decoder& decoder, const ExportText& text,
                   const ExportOptions& options, const std::string& path) {
  const ModelConfig& config = decoder.config();
  TensorStore store;
  for (const model::Parameter& parameter : decoder.parameters()) {
    const at::Tensor value = parameter.value.detach();
    if (parameter.spec.role == ParameterRole::kLinear && config.linear == LinearKind::kBitLinear) {
      store.AddTernary(parameter.spec.name, value, DividesByScale(options.format));
    } else {
      store.AddFloats(parameter.spec.name, value, options.format);
    }
  }
  store.Write(path + "/model.safetensors");
  WriteHfCompanions(ConfigJson(config, options.format), config.context_length, text, path);
}

std::map<std::string, std::string> CompanionFiles(const ExportText& text, int64_t context_length) {
  std::map<std::string, std::string> files = text.files;
  files.erase("config.json");  // The source's
  if (text.tokenizer == nullptr) return files;
  files.try_emplace("generation_config.json", Pretty(EndsOf(*text.tokenizer)));
  if (!files.contains("tokenizer.json")) AddTokenizerFiles(*text.tokenizer, context_length, &files);
  return files;
}

void WriteHfCompanions(json config_json, int64_t context_length, const ExportText& text,
                       const std::string& path) {
  if (text.tokenizer != nullptr) config_json.update(EndsOf(*text.tokenizer));
  WriteFileAtomically(path + "/config.json", Pretty(config_json));
  for (const auto& [name, bytes] : CompanionFiles(text, context_length))
    WriteFileAtomically(StrCat(path, "/", name), bytes);
}

}  // namespace tern::transfer
