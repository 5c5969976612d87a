// See gguf_mix.h.
#include "ptq/gguf_mix.h"

#include "base/error.h"

namespace tern::ptq {
namespace {

using formats::GgmlType;
using enum formats::GgmlType;

const GgufMix kMixes[] = {
    {"q2_k", kQ2_K, 10}, {"q3_k_s", kQ3_K, 11}, {"q3_k_m", kQ3_K, 12}, {"q3_k_l", kQ3_K, 13},
    {"q4_0", kQ4_0, 2},  {"q4_1", kQ4_1, 3},    {"q4_k_s", kQ4_K, 14}, {"q4_k_m", kQ4_K, 15},
    {"q5_0", kQ5_0, 8},  {"q5_1", kQ5_1, 9},    {"q5_k_s", kQ5_K, 16}, {"q5_k_m", kQ5_K, 17},
    {"q6_k", kQ6_K, 18}, {"q8_0", kQ8_0, 7},
};

// Layer i of n in the first or the last eighth, or every third between them.
bool MoreBits(int64_t i, int64_t n) { return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2; }

int64_t LayerOf(const std::string& name) {
  constexpr std::string_view kPrefix = "model.layers.";
  return name.starts_with(kPrefix) ? std::stoll(name.substr(kPrefix.size())) : -1;
}

GgmlType OfValues(const GgufMix& mix, int64_t layer, const ModelConfig& c) {
  const std::string& m = mix.name;
  GgmlType type = mix.base;
  if (m == "q2_k") type = c.num_heads / c.num_kv_heads >= 4 ? kQ4_K : kQ3_K;
  if (m == "q3_k_m") type = layer < 2 ? kQ5_K : kQ4_K;
  if (m == "q3_k_l") type = kQ5_K;
  if ((m == "q4_k_m" || m == "q5_k_m") && MoreBits(layer, c.num_layers)) type = kQ6_K;
  if (m == "q4_k_s" && layer < 4) type = kQ5_K;
  // 70B: eight heads share a value, so its matrix is small and worth more.
  if (c.num_layers == 80 && (type == kQ3_K || type == kQ4_K)) type = kQ5_K;
  return type;
}

GgmlType OfDown(const GgufMix& mix, int64_t layer, const ModelConfig& c, bool importance) {
  const std::string& m = mix.name;
  if (m == "q2_k") return kQ3_K;
  if (m == "q3_k_m") return layer < c.num_layers / 16 ? kQ5_K : kQ4_K;
  if (m == "q3_k_l") return kQ5_K;
  if ((m == "q4_k_m" || m == "q5_k_m") && MoreBits(layer, c.num_layers)) return kQ6_K;
  if (m == "q4_k_s" && layer < c.num_layers / 8) return kQ5_K;
  if (importance && layer < c.num_layers / 8) {
    if (m == "q4_0") return kQ4_1;
    if (m == "q5_0") return kQ5_1;
  }
  return mix.base;
}

GgmlType OfAttentionOutput(const GgufMix& mix) {
  if (mix.name == "q2_k") return kQ3_K;
  if (mix.name == "q3_k_m") return kQ4_K;
  return mix.name == "q3_k_l" ? kQ5_K : mix.base;
}

GgmlType Wanted(const GgufMix& mix, const ParameterSpec& spec, const ModelConfig& c,
                const GgufMixOptions& options) {
  if (options.pure) return mix.base;
  const bool embedding = spec.role == ParameterRole::kEmbedding;
  if (spec.role == ParameterRole::kHead || (embedding && c.tied_head))
    return mix.base == kQ8_0 || spec.shape[1] % 256 != 0 ? kQ8_0 : kQ6_K;
  if (spec.name.ends_with("v_proj.weight")) return OfValues(mix, LayerOf(spec.name), c);
  if (spec.name.ends_with("down_proj.weight"))
    return OfDown(mix, LayerOf(spec.name), c, options.importance);
  if (spec.name.ends_with("o_proj.weight")) return OfAttentionOutput(mix);
  return mix.base;
}

// The type for rows that are no multiple of 256.
GgmlType OfOtherRows(GgmlType type) {
  if (type == kQ2_K || type == kQ3_K) return kQ4_0;
  if (type == kQ4_K) return kQ5_0;
  if (type == kQ5_K) return kQ5_1;
  return type == kQ6_K ? kQ8_0 : type;
}

}  // namespace

std::optional<GgufMix> GgufMixByName(const std::string& name) {
  for (const GgufMix& mix : kMixes)
    if (mix.name == name) return mix;
  return std::nullopt;
}

std::string GgufMixNames() {
  std::string names;
  for (const GgufMix& mix : kMixes) names += StrCat(names.empty() ? "" : ", ", mix.name);
  return names;
}

GgufTypeChoice ChooseGgufType(const GgufMix& mix, const ParameterSpec& spec,
                              const ModelConfig& config, const GgufMixOptions& options) {
  const GgmlType wanted = Wanted(mix, spec, config, options);
  const int64_t k = spec.shape[1];
  const auto block = [](GgmlType type) { return formats::InfoOf(type).block_weights; };
  if (k % block(wanted) == 0) return {wanted, ""};
  GgmlType type = OfOtherRows(wanted);
  if (k % block(type) != 0) type = kF16;
  return {type, StrCat("rows of ", k, " are no multiple of ", block(wanted), ": ",
                       formats::InfoOf(type).name, " instead of ", formats::InfoOf(wanted).name)};
}

}  // namespace tern::ptq
