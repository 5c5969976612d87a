// Which architecture and which file formats a model shape fits (model_config.h). The rules are
// those of the programs that read the files; docs/formats/architectures.md tells where each comes
// from.
#include <string>
#include <vector>

#include "arch/format_names.h"
#include "arch/model_config.h"
#include "base/error.h"

namespace tern {
namespace {

constexpr std::string_view kI2s = "gguf/i2_s";
constexpr std::string_view kFormats[] = {
    "gguf/tq2_0",    "gguf/tq1_0", "gguf/f16", "gguf/bf16", "gguf/f32",    kI2s,        "hf/bitnet",
    "hf/autobitnet", "hf/bf16",    "hf/f16",   "hf/f32",    kPackedFormat, kPackedGguf, kModelFile};

constexpr int64_t kTernaryBlock = 256;  // TQ1_0 and TQ2_0 rows are made of blocks of 256 weights
constexpr int64_t kI2sBlock = 128;
constexpr int64_t kHfPackedRows = 4;  // HF bitnet packs four output rows in a byte

// The first linear layer whose inputs or outputs are no multiple of `unit`, as "name [N, K]", or
// empty.
std::string LayerNotDividing(const ModelConfig& config, size_t axis, int64_t unit) {
  for (const ParameterSpec& spec : ParameterTable(config)) {
    if (spec.role != ParameterRole::kLinear || spec.shape[axis] % unit == 0) continue;
    return StrCat(spec.name, " [", spec.shape[0], ", ", spec.shape[1], "]");
  }
  return "";
}

constexpr const char* kBiasAndNorm = "QK norm with biases on q, k and v is not known";

bool HeadsFillWidth(const ModelConfig& c) { return c.num_heads * c.HeadDim() == c.hidden_size; }

std::string FoundHeads(const ModelConfig& c) {
  return StrCat("heads x head_dim = hidden_size; found ", c.num_heads, " x ", c.HeadDim(), " and ",
                c.hidden_size);
}

bool WantsTernary(std::string_view format) {
  return format == "gguf/tq2_0" || format == "gguf/tq1_0" || format == kI2s ||
         format == "hf/bitnet" || format == "hf/autobitnet";
}

// Why no program that reads `format` computes this architecture, or empty.
std::string ArchObjection(const ModelConfig& c, std::string_view format) {
  if (format.starts_with("hf/")) {
    const ArchChoice hf = ChooseHfArch(c);
    if (c.rope_scaling.kind == RopeScalingKind::kFactors)
      return "knows no RoPE with factors of its own for each pair";
    return hf.name == ArchName::kNone ? StrCat("has no class for this model: ", hf.reason) : "";
  }
  const ArchChoice gguf = ChooseGgufArch(c);
  if (format == kI2s && gguf.name == ArchName::kQwen3)
    return "is read by Microsoft's fork of llama.cpp only, which runs no ternary qwen3";
  if (format == kI2s && gguf.name != ArchName::kNone) return "";
  const bool mainline = gguf.name != ArchName::kNone && gguf.name != ArchName::kBitnet158;
  return mainline ? "" : StrCat("has no architecture for this model: ", gguf.reason);
}

std::string ShapeObjection(const ModelConfig& c, std::string_view format) {
  std::string layer;
  if (format.starts_with("gguf/tq")) {
    layer = LayerNotDividing(c, 1, kTernaryBlock);
    if (!layer.empty()) {
      return StrCat("wants rows of a multiple of 256 weights, and ", layer, " is none");
    }
  } else if (format == kI2s) {
    layer = LayerNotDividing(c, 1, kI2sBlock);
    if (!layer.empty()) {
      return StrCat("wants rows of a multiple of 128 weights, and ", layer, " is none");
    }
  } else if (WantsTernary(format)) {
    layer = LayerNotDividing(c, 0, kHfPackedRows);
    if (!layer.empty()) {
      return StrCat("packs 4 output rows in a byte, and the outputs of ", layer,
                    " are no multiple of 4");
    }
  }
  return "";
}

std::string Why(const ModelConfig& c, std::string_view format) {
  if (format == kModelFile) return "";
  const bool ternary = c.linear == LinearKind::kBitLinear;
  if (WantsTernary(format) && !ternary) return "holds ternary layers, and model.linear is dense";
  if (!WantsTernary(format) && ternary) {
    return "holds dense layers, and model.linear is bitlinear: it would run without quantization";
  }
  const std::string arch = ArchObjection(c, format);
  return arch.empty() ? ShapeObjection(c, format) : arch;
}

}  // namespace

ArchChoice ChooseGgufArch(const ModelConfig& c) {
  const bool relu2 = c.activation == Activation::kRelu2;
  if (c.HasInputNorms()) {
    return {ArchName::kNone, "no llama.cpp architecture has a norm before each linear layer"};
  }
  if (!c.HasOutputNorms()) {
    if (relu2) return {ArchName::kNone, "squared ReLU is known only with sub-norms"};
    if (c.qk_norm && c.qkv_bias) return {ArchName::kNone, kBiasAndNorm};
    if (c.qk_norm) return {ArchName::kQwen3, "SiLU with QK norm"};
    if (c.qkv_bias) return {ArchName::kQwen2, "SiLU, plain norms, biases on q, k and v"};
    return {ArchName::kLlama, "SiLU, plain norms"};
  }
  if (c.qkv_bias) return {ArchName::kNone, "sub-norms with biases on q, k and v are not known"};
  if (c.qk_norm) {
    return {ArchName::kNone,
            "no llama.cpp architecture has sub-norms and QK norm; set one of them to false"};
  }
  if (!c.tied_head) {
    return {ArchName::kNone, "llama.cpp's bitnet has a tied head; set model.tied_head: true"};
  }
  if (!HeadsFillWidth(c)) {
    return {ArchName::kNone, StrCat("llama.cpp's bitnet wants ", FoundHeads(c))};
  }
  if (relu2) {
    return {ArchName::kBitnet158,
            "squared ReLU with sub-norms is bitnet-b1.58, which only Microsoft's fork of llama.cpp "
            "runs (gguf/i2_s); mainline's bitnet graph would apply SiLU to it"};
  }
  return {ArchName::kBitnet, "SiLU with sub-norms and a tied head"};
}

ArchChoice ChooseHfArch(const ModelConfig& c) {
  const bool relu2 = c.activation == Activation::kRelu2;
  if (!c.HasPreNorms()) {
    return {ArchName::kNone, "no transformers class lacks the norms before attention and FFN"};
  }
  if (c.HasInputNorms() && c.linear == LinearKind::kDense) {
    return {ArchName::kNone,
            "transformers' linear layers have norms of their own when they are ternary"};
  }
  // Those of every linear layer are BitLinear's (use_rms_norm): any class has them.
  if (!c.HasOutputNorms() || c.HasInputNorms()) {
    if (relu2) return {ArchName::kNone, "squared ReLU is known only with sub-norms"};
    if (c.qk_norm && c.qkv_bias) return {ArchName::kNone, kBiasAndNorm};
    if (c.qk_norm) return {ArchName::kQwen3, "SiLU with QK norm"};
    if (c.qkv_bias) return {ArchName::kQwen2, "SiLU, plain norms, biases on q, k and v"};
    return {ArchName::kLlama, "SiLU, plain norms"};
  }
  if (c.qkv_bias) return {ArchName::kNone, "sub-norms with biases on q, k and v are not known"};
  if (c.qk_norm) {
    return {ArchName::kNone,
            "no transformers architecture has sub-norms and QK norm; set one of them to false"};
  }
  if (!HeadsFillWidth(c)) {
    return {ArchName::kNone, StrCat("BitNetForCausalLM's attn_sub_norm wants ", FoundHeads(c))};
  }
  if (relu2) return {ArchName::kBitnet158, "squared ReLU with sub-norms"};
  return {ArchName::kBitnet, "SiLU with sub-norms"};
}

std::string WhyFormatCannotHold(const ModelConfig& config, std::string_view format) {
  std::string known, fitting;
  bool is_known = false;
  for (const std::string_view name : kFormats) {
    known += StrCat(known.empty() ? "" : ", ", name);
    is_known = is_known || name == format;
    if (!HoldsTrainedCodes(name) && Why(config, name).empty())
      fitting += StrCat(fitting.empty() ? "" : ", ", name);
  }
  if (!is_known) return StrCat("unknown format ", format, ". Formats: ", known);
  const std::string why = Why(config, format);
  if (why.empty()) return "";
  return StrCat(format, " ", why, ". This model fits ", fitting);
}

}  // namespace tern
