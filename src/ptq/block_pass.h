// One decoder layer over all calibration sequences, in the four steps at which its matrices get
// their inputs, so that each matrix is quantized for the inputs that the quantized ones before it
// give. A step runs sequence by sequence: beside the residual stream (4 D bytes a token) and the
// attention's output, memory does not grow with the number of tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "arch/model_config.h"
#include "nn/fused_ops.h"
#include "ptq/activation_room.h"

namespace tern::ptq {

enum class Step { kQkv, kO, kGateUp, kDown };
inline constexpr Step kSteps[] = {Step::kQkv, Step::kO, Step::kGateUp, Step::kDown};

// Names within a layer of the matrices that get the inputs of a step: "self_attn.q_proj.weight".
const std::vector<std::string>& MatricesOf(Step step);

class BlockPass {
 public:
  // Tensors of the layer by name within it; whoever changes one changes what the next steps see.
  using Tensors = std::map<std::string, at::Tensor>;
  // x_BTD: the layer's input, replaced by its output in the course of the steps. Both must outlive
  // this.
  BlockPass(const ModelConfig& config, const nn::RopeTables& rope, const Tensors& tensors,
            at::Tensor x_BTD, ActivationRoom room = {});

  // Calls `see` with the inputs of the step's matrices, [T, K] a sequence: as often as wanted, with
  // the matrices of all steps before it as they are at the time.
  void Inputs(Step step, const std::function<void(const at::Tensor& x_MK)>& see);
  // Goes on with the step's matrices as they are now. Steps finish in order, each once.
  void Finish(Step step);

  // All four steps at once for the input of one sequence, [T, D], with gradients to the tensors
  // that want them. Reads nothing of x_BTD but its number of tokens.
  at::Tensor Output(const at::Tensor& x_TD) const;

 private:
  const at::Tensor& Get(const std::string& name) const { return tensors_.at(name); }
  at::Tensor Norm(const at::Tensor& x, const char* name) const;
  at::Tensor Linear(const at::Tensor& x_MK, const char* name) const;
  at::Tensor Heads(const at::Tensor& n_TD, const char* name, int64_t heads) const;
  at::Tensor Attention(const at::Tensor& x_TD) const;
  at::Tensor Hidden(const at::Tensor& x_TD) const;  // Input of down_proj

  const ModelConfig& config_;
  const nn::RopeTables& rope_;
  const Tensors& tensors_;
  at::Tensor x_BTD_;
  ActivationRoom room_;
  at::Tensor attention_BTK_, positions_T_;
};

}  // namespace tern::ptq
