// See gguf_config.h. The rules are those of llama.cpp (tests/peers/FACTS.md).
#include "engine/gguf_config.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "arch/gguf_names.h"
#include "base/error.h"

namespace tern::engine {
namespace {

// Keys, after the architecture's name, that say nothing about what is computed here.
constexpr std::string_view kHarmless[] = {
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",  // Of scalings that are refused
    "attention.layer_norm_epsilon",          // Of norms that these architectures have not
    "tensor_data_layout",
};
// Keys whose value must be this one, if they are there at all.
struct FixedKey {
  std::string_view name;
  double value;
};
constexpr FixedKey kFixed[] = {
    {"expert_count", 0},
    {"expert_used_count", 0},
    {"use_parallel_residual", 0},
    {"attention.causal", 1},
    {"attention.clamp_kqv", 0},
    {"attention.max_alibi_bias", 0},
    {"rope.scaling.attn_factor", 1},
    {"logit_scale", 1},
    {"residual_scale", 1},
    {"embedding_scale", 1},
};

class Reader {
 public:
  Reader(const formats::GgufReader& file, ArchName arch) : file_(file), arch_(arch) {}

  ModelConfig Read(LinearKind linear) {
    ModelConfig c;
    c.linear = linear;
    c.hidden_size = Int("embedding_length");
    c.intermediate_size = Int("feed_forward_length");
    c.num_layers = Int("block_count");
    c.num_heads = Int("attention.head_count");
    c.num_kv_heads = IntOr("attention.head_count_kv", c.num_heads);
    c.head_dim = IntOr("attention.key_length", 0);
    c.context_length = Int("context_length");
    c.rope_theta = static_cast<float>(RealOr("rope.freq_base", c.rope_theta));
    c.norm_eps = static_cast<float>(file_.Real(Key("attention.layer_norm_rms_epsilon")));
    known_.insert(Key("attention.layer_norm_rms_epsilon"));
    c.vocab_size = file_.Get("token_embd.weight").rows();
    c.activation = arch_ == ArchName::kBitnet158 ? Activation::kRelu2 : Activation::kSilu;
    c.sub_norms = arch_ == ArchName::kBitnet || arch_ == ArchName::kBitnet158 ? SubNorms::kOutputs
                                                                              : SubNorms::kNone;
    c.qk_norm = arch_ == ArchName::kQwen3;
    c.tied_head = file_.Find("output.weight") == nullptr;
    c.qkv_bias = arch_ == ArchName::kQwen2;
    try {
      ValidateModelConfig(c);
    } catch (const RecipeError& error) {
      throw FormatError(StrCat(file_.path(), ": ", error.what()));
    }
    CheckInteger("vocab_size", c.vocab_size);
    CheckInteger("rope.dimension_count", c.HeadDim());
    CheckInteger("attention.value_length", c.HeadDim());
    c.rope_scaling = Scaling();
    ReadWindow(&c);
    CheckOtherKeys();
    return c;
  }

 private:
  std::string Key(std::string_view name) const { return StrCat(GgufArchName(arch_), ".", name); }
  int64_t Int(const char* name) {
    known_.insert(Key(name));
    return file_.Int(Key(name));
  }
  int64_t IntOr(const char* name, int64_t fallback) {
    return file_.Has(Key(name)) ? Int(name) : fallback;
  }
  double RealOr(const char* name, double fallback) {
    known_.insert(Key(name));
    return file_.Has(Key(name)) ? file_.Real(Key(name)) : fallback;
  }

  // A key that may be missing, but not say something else than the tensors do.
  void CheckInteger(const char* name, int64_t want) {
    const int64_t found = IntOr(name, want);
    TERN_CHECK_FORMAT(found == want, file_.path(), ": ", Key(name), " is ", found, "; want ", want);
  }

  // Of the keys: positions divided by a number, which also holds when no type is named.
  RopeScaling Scaling() {
    const std::string key = Key("rope.scaling.type");
    known_.insert(key);
    const std::string type = file_.Has(key) ? file_.String(key) : "linear";
    TERN_CHECK_FORMAT(type == "none" || type == "linear", file_.path(), ": ", key, " is ", type,
                      "; this version runs none and linear");
    const double factor = RealOr("rope.scaling.factor", RealOr("rope.scale_linear", 1));
    TERN_CHECK_FORMAT(factor >= 0 && std::isfinite(factor), file_.path(), ": ",
                      Key("rope.scaling.factor"), " is ", factor, "; want a number above 0");
    if (type == "none" || factor == 0 || factor == 1) return {};  // 0 is another way to say none
    return {RopeScalingKind::kLinear, factor};
  }

  // Of all layers: which of them slide is said by keys that are refused.
  void ReadWindow(ModelConfig* c) {
    const int64_t window = IntOr("attention.sliding_window", 0);
    TERN_CHECK_FORMAT(window >= 0, file_.path(), ": ", Key("attention.sliding_window"), " is ",
                      window, "; want 0 (none) or more");
    c->attention_windows = WindowsWithin(
        std::vector<int64_t>(static_cast<size_t>(c->num_layers), window), c->context_length);
  }

  void CheckOtherKeys() {
    for (const std::string_view name : kHarmless) known_.insert(Key(name));
    const nlohmann::json metadata = file_.Metadata(/*max_items=*/0);
    for (const FixedKey& fixed : kFixed) {
      const std::string key = Key(fixed.name);
      known_.insert(key);
      if (!metadata.contains(key)) continue;
      const nlohmann::json& value = metadata[key];
      const bool right = value.is_boolean()  ? value.get<bool>() == (fixed.value != 0)
                         : value.is_number() ? value.get<double>() == fixed.value
                                             : false;
      TERN_CHECK_FORMAT(right, file_.path(), ": ", key, " is ", value.dump(),
                        "; this version runs models in which it is ", fixed.value);
    }
    for (const std::string& key : file_.Keys(GgufArchName(arch_) + ".")) {
      TERN_CHECK_FORMAT(known_.contains(key), file_.path(), ": the key ", key,
                        " is not known to this version and could make another model of it");
    }
  }

  const formats::GgufReader& file_;
  ArchName arch_;
  std::set<std::string> known_;
};

}  // namespace

ModelConfig ReadGgufConfig(const formats::GgufReader& file, ArchName arch, LinearKind linear) {
  return Reader(file, arch).Read(linear);
}

}  // namespace tern::engine
