// Health of ternary training, by kind of linear layer (q_proj, ..., down_proj): share of zero
// codes, share of codes that one update flips, scale beta and how far one update moved it, share of
// activations at the int8 limits, and gradient norms. A pure function of one step, so a resumed run
// logs the same. Measured every few steps, because it quantizes all weights twice more.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "nn/bit_linear.h"
#include "parallel/group.h"

namespace tern::train {

// "q_proj" of "model.layers.3.self_attn.q_proj.weight".
std::string LayerKind(const std::string& parameter_name);

// Counts activations whose code is at the int8 limits during one forward pass, by BitLinear group.
class ClipCounter : public nn::BitLinearObserver {
 public:
  void OnActivations(std::string_view group, const quant::Int8Rows& x) override;
  nlohmann::json Shares() const;
  // Adds up what the ranks of `group` have seen.
  void Sum(parallel::Group& group);

 private:
  struct Count {
    int64_t clipped = 0, all = 0;
  };
  std::map<std::string, Count, std::less<>> counts_;
};

class HealthProbe {
 public:
  // source: not null when the matrices are spread over ranks; their codes must be fresh. tensor:
  // not null when each rank of the group has the codes of a slice; all of them call AfterUpdate.
  explicit HealthProbe(nn::WeightSource* source = nullptr, parallel::Group* tensor = nullptr)
      : source_(source), tensor_(tensor) {}

  // Remembers codes, scales and gradient norms (of gradients / loss_scale) before the update.
  // grad_squares: of the whole gradients' norms, by parameter.
  void BeforeUpdate(const std::vector<model::Parameter>& parameters,
                    const std::vector<double>& grad_squares, double loss_scale);
  // Compares them with the codes after it:
  // {"q_proj": {"zeros": share, "flips": share, "beta": mean, "beta_drift": mean relative,
  // "grad_norm": norm}, ...}.
  nlohmann::json AfterUpdate(const std::vector<model::Parameter>& parameters) const;

 private:
  quant::TernaryWeight Codes(const at::Tensor& w_NK, const at::Tensor& previous_NC) const;

  nn::WeightSource* source_;
  parallel::Group* tensor_;
  struct Before {
    at::Tensor codes_NC;
    float beta;
    double grad_norm;
  };
  std::vector<Before> before_;  // One a linear layer, in parameter order
};

}  // namespace tern::train
