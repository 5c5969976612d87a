// See traps.h.
#include "ptq/traps.h"

#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "arch/fused_names.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/json_fields.h"
#include "formats/half.h"
#include "formats/safetensors.h"
#include "formats/strict_json.h"

namespace tern::ptq {
namespace {

namespace fs = std::filesystem;
using engine::JsonFields;
using formats::SafetensorsReader;
using formats::SafetensorsTensor;
using nlohmann::json;

// The number of a tensor of one. Throws FormatError for another.
float OnlyFloat(const SafetensorsReader& tensors, const std::string& name,
                const SafetensorsTensor& tensor) {
  float value = 0;
  uint16_t bits = 0;
  const bool half = tensor.dtype == "BF16" || tensor.dtype == "F16";
  const size_t want = half ? sizeof bits : sizeof value;
  TERN_CHECK_FORMAT((half || tensor.dtype == "F32") && tensor.bytes.size() == want, tensors.path(),
                    ": ", name, " is ", tensor.dtype, " of ", tensor.bytes.size(),
                    " bytes; want one F32, BF16 or F16 number");
  if (!half) {
    std::memcpy(&value, tensor.bytes.data(), want);
    return value;
  }
  std::memcpy(&bits, tensor.bytes.data(), want);
  return tensor.dtype == "BF16" ? formats::Bf16ToFp32(bits) : formats::Fp16ToFp32(bits);
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
    const float value = OnlyFloat(tensors, name, tensor);
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
int CheckTernaryScales(const SafetensorsReader& tensors, const JsonFields& q) {
  const bool divides = q.GetOr<std::string>("linear_class", "bitlinear") == "bitlinear";
  if (q.GetOr<std::string>("quantization_mode", "offline") != "offline") return 0;
  std::string last;
  float stored = 0;
  for (const auto& [name, tensor] : tensors.tensors()) {
    if (!name.ends_with(".weight_scale")) continue;
    stored = OnlyFloat(tensors, name, tensor);
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
int CheckGptqZeros(const SafetensorsReader& tensors, const JsonFields& q) {
  if (!q.GetOr("sym", false)) return 0;
  const int bits = q.GetOr("bits", 4);
  TERN_CHECK_FORMAT(bits == 2 || bits == 3 || bits == 4 || bits == 8, q.where(), ": bits is ", bits,
                    "; want 2, 3, 4 or 8");
  const std::string version = q.GetOr<std::string>("checkpoint_format", "gptq");
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
  const JsonFields q(config["quantization_config"], path);
  const std::string method = q.GetOr<std::string>("quant_method", "");
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
