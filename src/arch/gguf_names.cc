// See gguf_names.h.
#include "arch/gguf_names.h"

#include "base/error.h"

namespace tern {
namespace {

struct NamePair {
  std::string_view hugging_face, gguf;
};
constexpr NamePair kGlobal[] = {{"model.embed_tokens.weight", "token_embd.weight"},
                                {"model.norm.weight", "output_norm.weight"},
                                {"lm_head.weight", "output.weight"}};
constexpr NamePair kLayer[] = {{"input_layernorm", "attn_norm"},
                               {"self_attn.q_proj", "attn_q"},
                               {"self_attn.k_proj", "attn_k"},
                               {"self_attn.v_proj", "attn_v"},
                               {"self_attn.q_norm", "attn_q_norm"},
                               {"self_attn.k_norm", "attn_k_norm"},
                               {"self_attn.attn_sub_norm", "attn_sub_norm"},
                               {"self_attn.o_proj", "attn_output"},
                               {"post_attention_layernorm", "ffn_norm"},
                               {"mlp.gate_proj", "ffn_gate"},
                               {"mlp.up_proj", "ffn_up"},
                               {"mlp.ffn_sub_norm", "ffn_sub_norm"},
                               {"mlp.down_proj", "ffn_down"}};
constexpr std::string_view kLayerPrefix = "model.layers.", kWeight = ".weight", kBias = ".bias";

struct ArchPair {
  ArchName arch;
  std::string_view name;
};
constexpr ArchPair kArchs[] = {{ArchName::kLlama, "llama"},
                               {ArchName::kQwen2, "qwen2"},
                               {ArchName::kQwen3, "qwen3"},
                               {ArchName::kBitnet, "bitnet"},
                               {ArchName::kBitnet158, "bitnet-b1.58"}};

}  // namespace

std::string GgufName(std::string_view parameter_name) {
  for (const NamePair& pair : kGlobal) {
    if (pair.hugging_face == parameter_name) return std::string(pair.gguf);
  }
  const std::string_view suffix = parameter_name.ends_with(kBias) ? kBias : kWeight;
  if (parameter_name.starts_with(kLayerPrefix) && parameter_name.ends_with(suffix)) {
    const std::string_view rest = parameter_name.substr(kLayerPrefix.size());
    const size_t dot = rest.find('.');
    const std::string_view part = rest.substr(dot + 1, rest.size() - dot - 1 - suffix.size());
    for (const NamePair& pair : kLayer) {
      if (pair.hugging_face == part)
        return StrCat("blk.", rest.substr(0, dot), ".", pair.gguf, suffix);
    }
  }
  throw BugError(StrCat("no GGUF name for ", parameter_name));
}

std::string ScaleName(const std::string& gguf_name) {
  TERN_CHECK(gguf_name.ends_with(kWeight), gguf_name);
  return gguf_name.substr(0, gguf_name.size() - kWeight.size()) + ".scale";
}

int64_t PermutedRow(int64_t row, int64_t head_dim) {
  const int64_t head = row / head_dim, within = row % head_dim, half = head_dim / 2;
  return head * head_dim + (within < half ? 2 * within : 2 * (within - half) + 1);
}

bool IsPermuted(ArchName arch, std::string_view parameter_name) {
  return arch == ArchName::kLlama &&
         (parameter_name.ends_with("q_proj.weight") || parameter_name.ends_with("k_proj.weight"));
}

std::string GgufArchName(ArchName arch) {
  for (const ArchPair& pair : kArchs) {
    if (pair.arch == arch) return std::string(pair.name);
  }
  throw BugError("no GGUF architecture");
}

ArchName ArchFromGgufName(std::string_view name) {
  for (const ArchPair& pair : kArchs) {
    if (pair.name == name) return pair.arch;
  }
  return ArchName::kNone;
}

}  // namespace tern
