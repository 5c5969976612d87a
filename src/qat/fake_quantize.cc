// See fake_quantize.h.
#include "qat/fake_quantize.h"

#include <algorithm>

#include "arch/fused_names.h"
#include "base/error.h"
#include "nn/straight_through.h"
#include "qat/layer_rules.h"
#include "quant/ternary.h"

namespace tern::qat {
namespace {

using recipe::WeightQuantizer;

constexpr int64_t kFp8Block = 128;  // DeepSeek-V3's blocks

// BitLinear's weights as floats. Clipped: gradients where w / beta rounds to a level without being
// clipped to it, as `inside` of the other formats.
at::Tensor FakeTernary(const recipe::QuantizeRule& rule, const at::Tensor& w_NK,
                       const quant::Noise* noise) {
  const at::Tensor values_NK = w_NK.detach();
  const quant::TernaryWeight q = quant::QuantizeTernary(values_NK);
  at::Tensor inside_NK;
  if (rule.clipped_gradient) inside_NK = values_NK.abs().mul_(1.0f / q.beta) <= 1.5;
  return nn::StraightThrough(w_NK,
                             noise != nullptr ? quant::FakeTernaryStochastic(values_NK, *noise)
                                              : quant::Dequantize(q, q.beta),
                             inside_NK);
}

}  // namespace

std::optional<quant::WeightFormat> FormatOf(const recipe::QuantizeRule& rule) {
  switch (rule.weights) {
    case WeightQuantizer::kInt8:
      return quant::IntFormat(8, rule.Group(), rule.symmetric);
    case WeightQuantizer::kInt4:
      return quant::IntFormat(4, rule.Group(), rule.symmetric);
    case WeightQuantizer::kInt3:
      return quant::IntFormat(3, rule.Group(), rule.symmetric);
    case WeightQuantizer::kInt2:
      return quant::IntFormat(2, rule.Group(), rule.symmetric);
    case WeightQuantizer::kFp8:
      return quant::Fp8Rows();
    case WeightQuantizer::kFp8Tensor:
      return quant::Fp8Tensor();
    case WeightQuantizer::kFp8Block:
      return quant::Fp8Blocks(kFp8Block, kFp8Block);
    case WeightQuantizer::kFp8E5m2:
      return quant::Fp8Rows(quant::Element::kE5m2);
    case WeightQuantizer::kFp8E5m2Tensor:
      return quant::Fp8Tensor(quant::Element::kE5m2);
    case WeightQuantizer::kFp8E5m2Block:
      return quant::Fp8Blocks(kFp8Block, kFp8Block, quant::Element::kE5m2);
    case WeightQuantizer::kNvfp4:
      return quant::Nvfp4();
    case WeightQuantizer::kMxfp4:
      return quant::Mxfp4();
    case WeightQuantizer::kQ4_0:
      return quant::GgufFormat(4);
    case WeightQuantizer::kQ8_0:
      return quant::GgufFormat(8);
    case WeightQuantizer::kLsq8:
      return quant::IntFormat(8, rule.Group());
    case WeightQuantizer::kLsq4:
      return quant::IntFormat(4, rule.Group());
    case WeightQuantizer::kLsq3:
      return quant::IntFormat(3, rule.Group());
    case WeightQuantizer::kSeq2:
      return quant::IntFormat(3, rule.Group());  // -3, -1, 1, 3 in units of a quarter of the scale
    case WeightQuantizer::kSign:
      return quant::IntFormat(2, rule.Group());
    case WeightQuantizer::kNone:
    case WeightQuantizer::kTernary:
    case WeightQuantizer::kSeqTernary:
      return std::nullopt;
  }
  __builtin_unreachable();
}

std::optional<LearnedQuantizer> LearnedOf(const recipe::QuantizeRule& rule) {
  switch (rule.weights) {
    case WeightQuantizer::kLsq8:
      return LearnedQuantizer{LearnedKind::kLsq, 8};
    case WeightQuantizer::kLsq4:
      return LearnedQuantizer{LearnedKind::kLsq, 4};
    case WeightQuantizer::kLsq3:
      return LearnedQuantizer{LearnedKind::kLsq, 3};
    case WeightQuantizer::kSeq2:
      return LearnedQuantizer{LearnedKind::kSeq2, 2};
    case WeightQuantizer::kSeqTernary:
      return LearnedQuantizer{LearnedKind::kSeqTernary, 2};
    case WeightQuantizer::kSign:
      return LearnedQuantizer{LearnedKind::kSign, 1};
    default:
      return std::nullopt;
  }
}

bool HasTensorScale(const recipe::QuantizeRule& rule) {
  const auto format = FormatOf(rule);
  return format && format->HasTensorScale();
}

void SharedRanges::Add(const std::string& name, const at::Tensor& w_NK) {
  const std::string fused = FusedName(name);
  float& amax = amax_[fused.empty() ? name : fused];
  amax = std::max(amax, quant::MaxAbs(w_NK.detach()));
}

std::optional<float> SharedRanges::Of(const std::string& name) const {
  const std::string fused = FusedName(name);
  const auto found = amax_.find(fused.empty() ? name : fused);
  return found == amax_.end() ? std::nullopt : std::optional(found->second);
}

at::Tensor FakeQuantize(const recipe::QuantizeRule& rule, const at::Tensor& w_NK,
                        const RuleScales& scales, const quant::Noise* noise) {
  if (rule.weights == WeightQuantizer::kNone) return w_NK;
  if (rule.rounding == recipe::Rounding::kNearest) noise = nullptr;
  if (const auto learned = LearnedOf(rule)) {
    TERN_CHECK(noise == nullptr, "CheckQuantize lets no learned scale through with noise");
    TERN_CHECK(scales.scale_NG.defined(), "a learned scale");
    return QuantizeLearned(*learned, w_NK, scales.scale_NG);
  }
  const at::Tensor values_NK = w_NK.detach();
  if (rule.weights == WeightQuantizer::kTernary) return FakeTernary(rule, w_NK, noise);
  const auto format = FormatOf(rule);
  TERN_CHECK(format.has_value(), "rules of none are taken out");
  at::Tensor inside_NK;
  at::Tensor* inside = rule.clipped_gradient ? &inside_NK : nullptr;
  if (scales.start) {
    const at::Tensor fixed_NK = quant::FakeQuantizeWith(values_NK, *format, *scales.start, inside);
    return nn::StraightThrough(w_NK, fixed_NK, inside_NK);
  }
  quant::RangeSearch range;
  if (format->HasTensorScale()) range.amax = scales.amax;
  const at::Tensor quantized_NK =
      noise != nullptr ? quant::FakeQuantizeStochastic(values_NK, *format, *noise, range, inside)
                       : quant::FakeQuantize(values_NK, *format, range, inside);
  return nn::StraightThrough(w_NK, quantized_NK, inside_NK);
}

quant::QuantizedWeight Encode(const recipe::QuantizeRule& rule, const at::Tensor& w_NK,
                              const RuleScales& scales) {
  const auto format = FormatOf(rule);
  TERN_CHECK(format.has_value(), NameOf(rule.weights), " has no format");
  if (const auto learned = LearnedOf(rule)) {
    // Exact: a scale of 8 bits times an integer of at most 8.
    const at::Tensor values_NK = QuantizeLearned(*learned, w_NK, scales.scale_NG).detach();
    const double unit = learned->kind == LearnedKind::kSeq2 ? 0.25 : 1;
    return quant::QuantizeWith(values_NK, *format,
                               {UsedScale(*learned, scales.scale_NG) * unit, {}, 1});
  }
  if (scales.start) return quant::QuantizeWith(w_NK, *format, *scales.start);
  quant::RangeSearch range;
  if (format->HasTensorScale()) range.amax = scales.amax;
  return quant::Quantize(w_NK, *format, range);
}

namespace {

std::string DescribeWeights(const recipe::QuantizeRule& rule) {
  if (LearnedOf(rule)) {
    const std::string of =
        rule.Group() > 0 ? StrCat("for 1 x ", rule.Group(), " weights") : "a row";
    return StrCat(NameOf(rule.weights), ", a learned scale ", of);
  }
  if (const auto format = FormatOf(rule)) return format->Describe();
  return rule.weights == WeightQuantizer::kTernary ? "ternary, one scale a matrix" : "none";
}

}  // namespace

std::string Describe(const recipe::QuantizeRule& rule) {
  std::string text = DescribeWeights(rule);
  if (rule.scales == recipe::ScaleSource::kStart) text += ", as at the start";
  if (rule.rounding == recipe::Rounding::kStochastic) text += ", rounded stochastically";
  if (rule.hadamard) text += "; inputs rotated";
  if (rule.inputs != recipe::InputQuantizer::kNone)
    text += StrCat(rule.hadamard ? ", " : "; inputs ", NameOf(rule.inputs));
  return text;
}

}  // namespace tern::qat
