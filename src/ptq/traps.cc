// See traps.h.
#include "ptq/traps.h"

#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "formats/half.h"
#include "formats/safetensors.h"
#include "formats/strict_json.h"

namespace tern::ptq {
namespace {

namespace fs = std::filesystem;
using formats::SafetensorsReader;
using formats::SafetensorsTensor;
using nlohmann::json;

// The fused matrix that engines make of it, "model.layers.0.self_attn.qkv"; "" when of none.
std::string FusedName(const std::string& module) {
  for (const char* part : {"q_proj", "k_proj", "v_proj"})
    if (module.ends_with(part)) return module.substr(0, module.size() - 6) + "qkv";
  if (module.ends_with("gate_proj")) return module.substr(0, module.size() - 9) + "gate_up";
  if (module.ends_with("up_proj")) return module.substr(0, module.size() - 7) + "gate_up";
  return "";
}

float FirstFloat(const SafetensorsTensor& tensor) {
  float value = 0;
  uint16_t bits = 0;
  if (tensor.dtype == "F32" && tensor.bytes.size() == 4)
    std::memcpy(&value, tensor.bytes.data(), 4);
  if (tensor.dtype == "BF16" && tensor.bytes.size() == 2) {
    std::memcpy(&bits, tensor.bytes.data(), 2);
    value = formats::Bf16ToFp32(bits);
  }
  return value;
}

int CheckGlobalScales(const SafetensorsReader& tensors) {
  constexpr std::string_view kPart = ".weight_global_scale";
  struct First {
    std::string module;
    float value;
  };
  std::map<std::string, First> groups;
  int found = 0;
  for (const auto& [name, tensor] : tensors.tensors()) {
    if (!name.ends_with(kPart)) continue;
    const std::string module = name.substr(0, name.size() - kPart.size());
    const std::string fused = FusedName(module);
    if (fused.empty()) continue;
    ++found;
    const float value = FirstFloat(tensor);
    const auto [first, added] = groups.try_emplace(fused, First{module, value});
    if (!added && first->second.value != value) {
      throw NumericError(StrCat(tensors.path(), ": ", name, " is ", value, ", that of ",
                                first->second.module, " ", first->second.value,
                                "; engines fuse the two and use one of them for both"));
    }
  }
  return found > 0 ? 1 : 0;
}

// The scale of a ternary matrix is mean |W|. Behind an RMSNorm that is far below 1 in every model
// that trains, so scales that are all above 1 once they are used are inverses.
int CheckTernaryScales(const SafetensorsReader& tensors, const json& q) {
  const bool divides = q.value("linear_class", "bitlinear") == "bitlinear";
  if (q.value("quantization_mode", "offline") != "offline") return 0;
  std::string last;
  float stored = 0;
  for (const auto& [name, tensor] : tensors.tensors()) {
    if (!name.ends_with(".weight_scale")) continue;
    stored = FirstFloat(tensor);
    if ((divides ? 1 / stored : stored) <= 1) return 1;
    last = name;
  }
  if (last.empty()) return 0;
  throw NumericError(StrCat(tensors.path(), ": ", last, " is ", stored, ", and so are all scales ",
                            divides ? "below" : "above", " 1, but with linear_class ",
                            divides ? "bitlinear products are divided by it (store 1 / mean |W|)"
                                    : "autobitlinear it multiplies (store mean |W|)",
                            ": the scales are the wrong way round"));
}

// v1 stores zero points less one: a symmetric matrix has 2^(b-1) - 1 in every place, of v2
// 2^(b-1). The other version's shift every weight by one step.
int CheckGptqZeros(const SafetensorsReader& tensors, const json& q) {
  if (!q.value("sym", false)) return 0;
  const int bits = q.value("bits", 4);
  const std::string version = q.value("checkpoint_format", "gptq");
  const uint32_t middle = (1u << (bits - 1)) - (version == "gptq" ? 1 : 0);
  int found = 0;
  for (const auto& [name, tensor] : tensors.tensors()) {
    if (!name.ends_with(".qzeros")) continue;
    ++found;
    const int64_t count = static_cast<int64_t>(tensor.bytes.size()) * 8 / bits;
    for (int64_t i = 0; i < count * bits; ++i) {  // Bit by bit: codes may straddle bytes.
      const auto byte = static_cast<uint32_t>(tensor.bytes[static_cast<size_t>(i / 8)]);
      if ((byte >> (i % 8) & 1u) == (middle >> (i % bits) & 1u)) continue;
      throw NumericError(StrCat(tensors.path(), ": ", name, " of a symmetric matrix is not ",
                                middle, " everywhere, as checkpoint_format ", version,
                                " wants; zero points of ", version == "gptq" ? "gptq_v2" : "gptq",
                                " shift every weight by one step"));
    }
  }
  return found > 0 ? 1 : 0;
}

}  // namespace

int CheckTraps(const std::string& output) {
  if (!fs::is_directory(output)) return 0;
  const std::string path = output + "/config.json";
  const json config = formats::ParseStrictJson(ReadFile(path), path);
  if (!config.contains("quantization_config")) return 0;
  const json& q = config["quantization_config"];
  const std::string method = q.value("quant_method", "");
  const SafetensorsReader tensors(output);
  if (method == "bitnet") return CheckTernaryScales(tensors, q);
  if (method == "gptq") return CheckGptqZeros(tensors, q);
  return CheckGlobalScales(tensors);
}

void CheckConfig(const ModelConfig& found, const ModelConfig& source, const std::string& output) {
  if (found.activation != source.activation) {
    throw NumericError(StrCat(
        output, " runs as ", ToString(found.activation), ", its source as ",
        ToString(source.activation),
        "; llama.cpp's bitnet is always silu: squared ReLU needs bitnet-b1.58 (gguf/i2_s), or "
        "a Hugging Face folder"));
  }
  const auto same = [&](const char* field, double a, double b) {
    if (a != b) throw NumericError(StrCat(output, ": ", field, " is ", a, ", of the source ", b));
  };
  const auto sizes = [](int64_t a) { return static_cast<double>(a); };
  same("vocab_size", sizes(found.vocab_size), sizes(source.vocab_size));
  same("hidden_size", sizes(found.hidden_size), sizes(source.hidden_size));
  same("intermediate_size", sizes(found.intermediate_size), sizes(source.intermediate_size));
  same("num_layers", sizes(found.num_layers), sizes(source.num_layers));
  same("num_heads", sizes(found.num_heads), sizes(source.num_heads));
  same("num_kv_heads", sizes(found.num_kv_heads), sizes(source.num_kv_heads));
  same("head_dim", sizes(found.HeadDim()), sizes(source.HeadDim()));
  same("rope_theta", double{found.rope_theta}, double{source.rope_theta});
  same("norm_eps", double{found.norm_eps}, double{source.norm_eps});
}

}  // namespace tern::ptq
