// Fake quantization of one weight matrix by a recipe's rule: in the forward pass the very values
// that an export of that quantizer dequantizes to (src/quant does both), in the backward pass a
// straight-through or learned-scale gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <optional>
#include <string>

#include "qat/learned_scale.h"
#include "quant/weight_quantizer.h"
#include "recipe/recipe.h"

namespace tern::qat {

// How the rule's codes and scales are stored; nothing where no such format has its levels: ternary
// (src/quant/ternary.h) and seq_ternary.
std::optional<quant::WeightFormat> FormatOf(const recipe::QuantizeRule& rule);
bool HasTensorScale(const recipe::QuantizeRule& rule);
// Nothing when the rule's scales are not learned.
std::optional<LearnedQuantizer> LearnedOf(const recipe::QuantizeRule& rule);

// The numbers beside a matrix's latents that its rule quantizes with.
struct RuleScales {
  at::Tensor scale_NG;                      // Of LearnedOf's, else undefined
  std::optional<quant::BlockScales> start;  // Of scales: start
  std::optional<float> amax;                // SharedRanges', for a rule with HasTensorScale
};

// Ranges of matrices with a scale for the whole, by parameter name: engines make one matrix of
// several (arch/fused_names.h), which has one, for the largest of all.
class SharedRanges {
 public:
  void Add(const std::string& name, const at::Tensor& w_NK);
  std::optional<float> Of(const std::string& name) const;

 private:
  std::map<std::string, float> amax_;  // By fused name
};

// w_NK: fp32 latents, which a rule of none leaves as they are. With gradients. `noise`: what a rule
// of stochastic rounding rounds with; null: to the nearest, whatever the rule says. Throws
// NumericError when w holds NaN or Inf.
at::Tensor FakeQuantize(const recipe::QuantizeRule& rule, const at::Tensor& w_NK,
                        const RuleScales& scales, const quant::Noise* noise = nullptr);

// The same values as codes and scales. Throws NumericError as FakeQuantize. REQUIRES:
// FormatOf(rule).
quant::QuantizedWeight Encode(const recipe::QuantizeRule& rule, const at::Tensor& w_NK,
                              const RuleScales& scales);

// "int4, a bf16 scale for 1 x 64 weights", "lsq3, a learned scale a row; inputs int4_absmean".
std::string Describe(const recipe::QuantizeRule& rule);

}  // namespace tern::qat
