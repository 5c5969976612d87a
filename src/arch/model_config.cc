// See model_config.h. Which formats a shape allows is in format_rules.cc.
#include "arch/model_config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace tern {
namespace {

constexpr int64_t kMaxVocabulary = 1 << 24;
constexpr int64_t kMaxWidth = 1 << 20;
// 127 * K must stay below 2^24, so that the integer sum of a row is exact as fp32 (ARCHITECTURE.md,
// "Numbers").
constexpr int64_t kMaxBitLinearInputs = (1 << 24) / 127;

void CheckRange(const char* field, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    throw RecipeError(StrCat("model.", field, " is ", value, "; want ", low, " to ", high));
  }
}

void CheckDivides(const char* field, int64_t value, const char* divisor_field, int64_t divisor) {
  if (value % divisor != 0) {
    throw RecipeError(StrCat("model.", field, " = ", value, " is not a multiple of model.",
                             divisor_field, " = ", divisor));
  }
}

void AddLayer(const ModelConfig& c, int64_t layer, std::vector<ParameterSpec>* table) {
  const std::string prefix = StrCat("model.layers.", layer, ".");
  const int64_t d = c.hidden_size, f = c.intermediate_size, e = c.HeadDim();
  const auto norm = [&](const std::string& name, int64_t size, bool present = true) {
    if (present) table->push_back({StrCat(prefix, name, ".weight"), {size}, ParameterRole::kNorm});
  };
  const auto linear = [&](const char* name, int64_t out, int64_t in) {
    const std::string own = OwnNorm(c, name);
    norm(own, in, !own.empty());
    table->push_back({StrCat(prefix, name, ".weight"), {out, in}, ParameterRole::kLinear});
  };
  norm("input_layernorm", d, c.HasPreNorms());
  linear("self_attn.q_proj", c.num_heads * e, d);
  linear("self_attn.k_proj", c.num_kv_heads * e, d);
  linear("self_attn.v_proj", c.num_kv_heads * e, d);
  for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}) {
    const int64_t heads =
        name == std::string_view("self_attn.q_proj") ? c.num_heads : c.num_kv_heads;
    if (c.qkv_bias)
      table->push_back({StrCat(prefix, name, ".bias"), {heads * e}, ParameterRole::kBias});
  }
  norm("self_attn.q_norm", e, c.qk_norm);
  norm("self_attn.k_norm", e, c.qk_norm);
  linear("self_attn.o_proj", d, c.num_heads * e);
  norm("post_attention_layernorm", d, c.HasPreNorms());
  linear("mlp.gate_proj", f, d);
  linear("mlp.up_proj", f, d);
  linear("mlp.down_proj", d, f);
}

void CheckRopeScaling(const ModelConfig& c) {
  const RopeScaling& s = c.rope_scaling;
  const auto positive = [](double value) { return value > 0 && std::isfinite(value); };
  constexpr double kMostFactor = 1e4;  // Contexts are stretched some hundred times at most
  const bool numbers = positive(s.factor) && s.factor >= 1 / kMostFactor &&
                       s.factor <= kMostFactor && positive(s.low_freq_factor) &&
                       positive(s.high_freq_factor) && positive(s.original_context);
  if (!numbers || s.high_freq_factor <= s.low_freq_factor) {
    throw RecipeError(
        StrCat("model.rope_scaling has factor ", s.factor, ", low_freq_factor ", s.low_freq_factor,
               ", high_freq_factor ", s.high_freq_factor, ", original_context ", s.original_context,
               "; want numbers above 0, the first from 1e-4 to 1e4, the second below the third"));
  }
  const int64_t wanted = s.kind == RopeScalingKind::kFactors ? c.HeadDim() / 2 : 0;
  if (static_cast<int64_t>(s.factors.size()) != wanted) {
    throw RecipeError(StrCat("model.rope_scaling has ", s.factors.size(),
                             " factors of its own; want ", wanted,
                             ", one for each pair of a head"));
  }
  for (const double factor : s.factors) {
    if (!positive(factor))
      throw RecipeError(StrCat("model.rope_scaling has the factor ", factor, "; want above 0"));
  }
}

}  // namespace

void ValidateModelConfig(const ModelConfig& c) {
  CheckRange("vocab_size", c.vocab_size, 2, kMaxVocabulary);
  CheckRange("hidden_size", c.hidden_size, 1, kMaxWidth);
  CheckRange("intermediate_size", c.intermediate_size, 1, kMaxWidth);
  CheckRange("num_layers", c.num_layers, 1, 10000);
  CheckRange("num_heads", c.num_heads, 1, 10000);
  CheckRange("num_kv_heads", c.num_kv_heads, 1, c.num_heads);
  CheckRange("head_dim", c.head_dim, 0, kMaxWidth);
  CheckRange("context_length", c.context_length, 1, int64_t{1} << 24);
  CheckDivides("num_heads", c.num_heads, "num_kv_heads", c.num_kv_heads);
  if (c.head_dim == 0) CheckDivides("hidden_size", c.hidden_size, "num_heads", c.num_heads);
  if (c.HeadDim() % 2 != 0) {
    throw RecipeError(
        StrCat("a head is ", c.HeadDim(), " wide; rotary embedding needs an even width"));
  }
  CheckRange("num_heads * head_dim", c.num_heads * c.HeadDim(), 1, kMaxWidth);
  if (c.linear == LinearKind::kBitLinear) {
    for (const int64_t inputs : {c.hidden_size, c.intermediate_size, c.num_heads * c.HeadDim()}) {
      CheckRange("hidden_size, intermediate_size or heads * head_dim (inputs of a BitLinear)",
                 inputs, 1, kMaxBitLinearInputs);
    }
  }
  const auto positive = [](const char* field, float value) {
    if (!(value > 0) || !std::isfinite(value))
      throw RecipeError(StrCat("model.", field, " is ", value, "; want above 0"));
  };
  positive("rope_theta", c.rope_theta);
  positive("norm_eps", c.norm_eps);
  if (c.norm_eps > 1)
    throw RecipeError(StrCat("model.norm_eps is ", c.norm_eps, "; want at most 1"));
  positive("init_std", c.init_std);
  CheckRopeScaling(c);
  if (c.attention_windows.empty()) return;
  const auto windows = static_cast<int64_t>(c.attention_windows.size());
  CheckRange("attention_windows (how many)", windows, c.num_layers, c.num_layers);
  for (const int64_t window : c.attention_windows)
    CheckRange("attention_windows", window, 0, c.context_length);
}

std::vector<int64_t> WindowsWithin(std::vector<int64_t> windows, int64_t context_length) {
  bool any = false;
  for (int64_t& window : windows) {
    if (window >= context_length) window = 0;
    any = any || window > 0;
  }
  if (!any) windows.clear();
  return windows;
}

ModelConfig CutToWindow(ModelConfig config) {
  for (const int64_t window : config.attention_windows) {
    if (window > 0) config.context_length = std::min(config.context_length, window);
  }
  config.attention_windows.clear();
  return config;
}

int64_t ParameterSpec::Count() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

std::vector<ParameterSpec> ParameterTable(const ModelConfig& c) {
  std::vector<ParameterSpec> table;
  table.push_back(
      {"model.embed_tokens.weight", {c.vocab_size, c.hidden_size}, ParameterRole::kEmbedding});
  for (int64_t layer = 0; layer < c.num_layers; ++layer) AddLayer(c, layer, &table);
  table.push_back({"model.norm.weight", {c.hidden_size}, ParameterRole::kNorm});
  if (!c.tied_head)
    table.push_back({"lm_head.weight", {c.vocab_size, c.hidden_size}, ParameterRole::kHead});
  return table;
}

std::string OwnNorm(const ModelConfig& config, std::string_view linear) {
  if (config.HasInputNorms()) return StrCat(linear, ".rms_norm");
  if (!config.HasOutputNorms()) return "";
  if (linear == "self_attn.o_proj") return "self_attn.attn_sub_norm";
  return linear == "mlp.down_proj" ? "mlp.ffn_sub_norm" : "";
}

int64_t CountParameters(const ModelConfig& config) {
  int64_t count = 0;
  for (const ParameterSpec& spec : ParameterTable(config)) count += spec.Count();
  return count;
}

std::string_view ToString(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return "silu";
    case Activation::kRelu2:
      return "relu2";
  }
  __builtin_unreachable();
}

std::string_view ToString(SubNorms sub_norms) {
  switch (sub_norms) {
    case SubNorms::kNone:
      return "none";
    case SubNorms::kOutputs:
      return "outputs";
    case SubNorms::kEveryLinear:
      return "every_linear";
    case SubNorms::kEveryLinearOnly:
      return "every_linear_only";
  }
  __builtin_unreachable();
}

std::string_view ToString(LinearKind linear) {
  switch (linear) {
    case LinearKind::kDense:
      return "dense";
    case LinearKind::kBitLinear:
      return "bitlinear";
  }
  __builtin_unreachable();
}

}  // namespace tern
