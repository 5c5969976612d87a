// AdamW (Loshchilov & Hutter, arXiv 1711.05101) over fp32 latents by libtorch's fused step. Two
// groups: matrices of linear layers and an untied head decay; norms and embeddings (a tied head
// with them) do not; within them those of one learning rate are a group. Unscaling and clipping are
// folded into the fused step, so a gradient is read twice in all: once for its norm, once for the
// update. Offloaded (ZeRO-Offload, arXiv 2101.06840, without its overlap), a parameter at a time
// goes to host memory with its gradient, is updated beside its moments, and comes back.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/decoder.h"
#include "recipe/recipe.h"

namespace tern::train {

// Global 2-norm of the gradients / loss_scale from the squares of their norms.
double NormOf(const std::vector<double>& squares, double loss_scale);

class AdamW {
 public:
  // frozen: of the first parameters those that never have a gradient, and get no moments.
  // config.offload: moments are in host memory wherever the parameters are.
  AdamW(const std::vector<model::Parameter>& parameters, const recipe::OptimizerConfig& config,
        const std::vector<bool>& frozen = {});

  // Squares of the 2-norms of the gradients, by parameter; 0 for one without a gradient.
  std::vector<double> GradSquares() const;

  // One update with the gradients in .grad / loss_scale, clipped to config.clip_norm by `grad_norm`
  // (NormOf the whole gradient's squares). REQUIRES: grad_norm is finite.
  void Step(double learning_rate, double weight_decay, double grad_norm, double loss_scale);

  // Drops all gradients.
  void ZeroGrad();

  // Moments in the order of the parameters, undefined for frozen ones; the checkpoint stores and
  // fills them in place.
  const std::vector<at::Tensor>& exp_avg() const { return exp_avg_; }
  const std::vector<at::Tensor>& exp_avg_sq() const { return exp_avg_sq_; }
  int64_t num_updates() const { return num_updates_; }
  void set_num_updates(int64_t updates) { num_updates_ = updates; }

 private:
  struct Rates {
    double learning_rate, weight_decay;
    double divisor;  // Of gradients
  };
  // Parameters that decay or not, and have one lr_factor.
  void StepGroup(bool decays, double lr_factor, const Rates& rates);
  using Tensors = std::vector<at::Tensor>;
  void Update(const Tensors& values, const Tensors& grads, const Tensors& exp_avg,
              const Tensors& exp_avg_sq, const Rates& rates) const;

  std::vector<model::Parameter> parameters_;
  recipe::OptimizerConfig config_;
  std::vector<at::Tensor> exp_avg_, exp_avg_sq_;
  int64_t num_updates_ = 0;
};

}  // namespace tern::train
