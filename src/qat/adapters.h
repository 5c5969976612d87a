// Low-rank adapters (LoRA, arXiv 2106.09685) under the quantizers: a layer's latents are W + scale
// B A, W frozen, and what quantizes them (a fake quantizer or BitLinear) sees the sum. So merging
// loses nothing: the merged latents quantize to what was trained.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/decoder.h"
#include "recipe/recipe.h"

namespace tern::qat {

class Adapters {
 public:
  // Of the linear layers that config.layers match (as quantize.rules); none when the rank is 0. A:
  // uniform in +-1/sqrt(K) by the seed, B: 0; in the device's memory. Throws RecipeError for a
  // pattern without a match.
  Adapters(const recipe::LoraConfig& config, const ModelConfig& model, const std::string& stage_id,
           uint64_t seed, const at::Device& device = at::kCPU);
  // As a checkpoint has them.
  Adapters(const nlohmann::json& stored, const checkpoint::CheckpointReader& reader,
           const model::Decoder& decoder);

  bool empty() const { return pairs_.empty(); }
  std::vector<std::string> names() const;
  // "lora_a.<parameter>" [rank, K] and "lora_b.<parameter>" [N, rank].
  std::vector<model::Parameter> parameters() const;
  // W + scale B A with gradients to all three; w itself for a layer without an adapter.
  at::Tensor Merged(const std::string& parameter, const at::Tensor& w_NK) const;
  nlohmann::json ToJson() const;  // {parameter: {"rank", "scale"}}

 private:
  struct Pair {
    model::Parameter a_RK, b_NR;
    double scale;
  };
  void Add(const ParameterSpec& spec, int64_t rank, double scale, const at::Device& device);

  std::map<std::string, Pair> pairs_;
};

}  // namespace tern::qat
