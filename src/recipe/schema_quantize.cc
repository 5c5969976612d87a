// The keys of a train stage's fake quantizers (schema.h).
#include "recipe/schema_parts.h"

namespace tern::recipe {
namespace {

constexpr const char* kWeightQuantizers[] = {"none",
                                             "ternary",
                                             "int8",
                                             "int4",
                                             "int3",
                                             "int2",
                                             "fp8",
                                             "fp8_tensor",
                                             "fp8_block",
                                             "fp8_e5m2",
                                             "fp8_e5m2_tensor",
                                             "fp8_e5m2_block",
                                             "nvfp4",
                                             "mxfp4",
                                             "q4_0",
                                             "q8_0",
                                             "lsq8",
                                             "lsq4",
                                             "lsq3",
                                             "seq2",
                                             "seq_ternary",
                                             "sign"};
static_assert(std::size(kWeightQuantizers) == static_cast<size_t>(WeightQuantizer::kSign) + 1);
constexpr const char* kInputQuantizers[] = {"none",        "int8",         "int4_absmean",
                                            "int4_absmax", "int8_dynamic", "fp8_dynamic"};
static_assert(std::size(kInputQuantizers) == static_cast<size_t>(InputQuantizer::kFp8Dynamic) + 1);
constexpr const char* kScaleSources[] = {"weights", "start"};
constexpr const char* kRoundings[] = {"nearest", "stochastic"};
constexpr const char* kWarmups[] = {"linear", "exponential", "sigmoid"};

void DescribeRule(FieldVisitor& v, QuantizeRule& r) {
  v.Texts("layers", r.layers,
          {"Globs over layers (model.layers.0.mlp.up_proj) or their last part (down_proj); one "
           "that matches nothing is an error"});
  Choice(
      v, "weights", r.weights, kWeightQuantizers,
      {"Quantizer; none leaves the weights as they are. fp8 is E4M3 with a scale a row; q4_0 and "
       "q8_0 are llama.cpp's blocks of 32; lsq, seq and sign learn their scales"});
  v.Int("group", r.group,
        {"int8 to int2, lsq, seq and sign: weights that share a scale; 0: a row; -1: 64 of the "
         "first, a row of the learned ones",
         "weights", -1, 1 << 20});
  v.Flag("symmetric", r.symmetric, {"int8 to int2: without zero points"});
  Choice(
      v, "scales", r.scales, kScaleSources,
      {"int8 to int2: weights: found from them in each step; start: those of model.from, a folder "
       "that tern quantize made so, which stay"});
  v.Flag("clipped_gradient", r.clipped_gradient,
         {"No gradient to weights beyond the last level; else straight through"});
  Choice(
      v, "rounding", r.rounding, kRoundings,
      {"stochastic: in training a weight goes to the level below or above at random, so that its "
       "mean is the weight; what is evaluated and shipped is rounded to the nearest"});
  Choice(v, "inputs", r.inputs, kInputQuantizers,
         {"Quantizer of the layers' inputs, a scale a token. int8_dynamic and fp8_dynamic are "
          "compressed-tensors' own, which hf/compressed_tensors holds beside int8 and fp8 weights; "
          "int8 is BitLinear's, int4_absmean BitNet a4.8's, and no export format holds these"});
  v.Flag("hadamard", r.hadamard,
         {"Rotate the layers' inputs by a Hadamard transform before they are quantized, and the "
          "weights at the start (BitNet v2: o_proj, down_proj). No export format holds it"});
}

void DescribeRules(FieldVisitor& v, std::vector<QuantizeRule>& rules) {
  constexpr Meta kMeta{"Which layers are quantized, and how; the last that matches has a layer"};
  std::vector<std::string> names;
  for (const QuantizeRule& rule : rules) names.push_back(rule.name);
  names = v.Names("rules", std::move(names), kMeta);
  if (names.empty()) return;
  rules.resize(names.size());
  v.Enter("rules", kMeta);
  for (size_t i = 0; i < names.size(); ++i) {
    rules[i].name = names[i];
    v.Enter(names[i].c_str(), {"A rule under a name of your choice"});
    DescribeRule(v, rules[i]);
    v.Leave();
  }
  v.Leave();
}

}  // namespace

std::span<const char* const> WeightQuantizerNames() { return kWeightQuantizers; }
std::span<const char* const> InputQuantizerNames() { return kInputQuantizers; }

void DescribeQuantize(FieldVisitor& v, QuantizeConfig& q) {
  DescribeRules(v, q.rules);
  v.Int("warmup_steps", q.warmup_steps,
        {"Steps in which w + lambda (q(w) - w) goes from w to q(w); of BitLinear also inputs",
         "steps", 0, 1e9});
  Choice(v, "warmup", q.warmup, kWarmups, {"How lambda grows"});
  v.Texts("progressive", q.progressive,
          {"Quantizers that take turns before the rules' own, such as [int8, int4]"});
  v.Real("progressive_until", q.progressive_until,
         {"When the rules' own begin", "share of steps", 0.01, 1});
}

void DescribeLora(FieldVisitor& v, LoraConfig& l) {
  v.Int("rank", l.rank,
        {"Width of the adapters; 0: none, the model itself is trained", "", 0, 1 << 16});
  v.Real("alpha", l.alpha, {"The adapters' products count alpha / rank times", "", 1e-6, 1e6});
  v.Texts("layers", l.layers, {"Linear layers that get one, as in quantize.rules"});
}

}  // namespace tern::recipe
