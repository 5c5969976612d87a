// A decoder whose linear layers are trained through fake quantizers, adapters or both. Latents stay
// fp32; adapters and the scales of learned quantizers are parameters beside them. A matrix is
// quantized once a step, however many micro-batches there are: these add their gradients to the
// quantized matrix, and End sends the sum on to latent and scale.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/decoder.h"
#include "qat/adapters.h"
#include "qat/fake_quantize.h"
#include "qat/layer_rules.h"
#include "quant/weight_quantizer.h"
#include "recipe/recipe.h"

namespace tern::qat {

// Share of quantization at a step: x + lambda (q(x) - x). 1 after warmup_steps; before, over t =
// step / warmup_steps: linear t; exponential (1 - e^-5t) / (1 - e^-5); sigmoid of 12 (t - 1/2),
// scaled to go from 0 to 1.
double QuantizedShare(const recipe::QuantizeConfig& config, int64_t step);

class QuantizedModel {
 public:
  // seed: of adapters and stochastic rounding. device: where its parameters are, and the decoders
  // it is used with. Throws RecipeError as MatchRules.
  QuantizedModel(const recipe::TrainStage& stage, const ModelConfig& model, uint64_t seed = 0,
                 const at::Device& device = at::kCPU);

  bool empty() const { return rules_.empty() && adapters_.empty(); }
  const Adapters& adapters() const { return adapters_; }
  const LayerRules& rules() const { return rules_; }
  // Learned scales [N, G], named "quantize.<parameter>", those of the start with their zero
  // points, "quantize_zero.<parameter>", which are not trained, then adapters; to be saved with the
  // decoder, or with adapters instead of it.
  std::vector<model::Parameter> parameters() const;
  // Makes latents of a plain decoder those of this model, once, before the first step: the matrices
  // whose inputs are rotated become W H, so that W H (H x) is W x as before; learned scales get
  // their initial values, those of the start are found. Throws RecipeError for a matrix that has
  // none.
  void Start(const model::Decoder& decoder) const;

  // The decoder to run step `step` with; its quantized matrices collect gradients until End.
  model::Decoder Begin(const model::Decoder& decoder, int64_t step);
  void End();
  // Entirely quantized, without gradients: what is evaluated and shipped.
  model::Decoder Shipped(const model::Decoder& decoder) const;

  // For the checkpoint: {"rules": {parameter: {"weights", "group", "symmetric", and if they are not
  // none, false and weights: "inputs", "hadamard", "scales"}}, "lora": {...}}.
  nlohmann::json ToJson() const;

 private:
  void AddParameter(const std::string& name, std::vector<int64_t> shape,
                    std::optional<double> lr_factor);  // Absent: not trained
  // Undefined: there is none.
  const at::Tensor& Extra(const std::string& name) const;
  RuleScales ScalesOf(const std::string& parameter) const;
  // Layers that are not used as they are.
  std::vector<std::string> Names() const;
  SharedRanges RangesAt(const model::Decoder& decoder, int64_t step) const;
  // What layer `name` runs with: its latents with the adapter, quantized by its rule at `step`.
  at::Tensor Effective(const std::string& name, const at::Tensor& latent_NK,
                       const SharedRanges& ranges, int64_t step, double share, bool trains) const;
  // The rule at a step: fewer bits as a progressive schedule goes on.
  recipe::QuantizeRule RuleAt(const recipe::QuantizeRule& rule, int64_t step) const;

  recipe::QuantizeConfig config_;
  std::string stage_id_;
  uint64_t seed_;
  at::Device device_;
  int64_t steps_;
  LayerRules rules_;
  Adapters adapters_;
  std::vector<model::Parameter> scales_;
  std::map<std::string, size_t> scale_index_;  // By its own name
  std::vector<at::Tensor> graph_, leaves_;     // Between Begin and End
};

// The decoder that the checkpoint ships: its parameters, quantized as they were trained, with what
// is done to inputs (Decoder::inputs). Throws FormatError.
model::Decoder LoadShipped(const checkpoint::CheckpointReader& reader);

// The matrices that rules quantize, by parameter name, as codes and scales; Dequantize of each is
// LoadShipped's value. Throws FormatError; RecipeError for a rule whose levels no format has.
std::map<std::string, quant::QuantizedWeight> LoadCodes(const checkpoint::CheckpointReader& reader);

// Its latents instead: adapters merged, nothing quantized, rotated matrices turned back. What a
// later training starts from.
model::Decoder LoadLatents(const checkpoint::CheckpointReader& reader);

inline constexpr const char* kQuantizeState = "quantize";  // Key of the checkpoint's state

}  // namespace tern::qat
