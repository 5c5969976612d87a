// The one decoder: a ModelConfig (src/arch) made of tensors. Parameters are fp32 latents in the
// order of ParameterTable; what is ternary is quantized inside the forward pass and never stored
// here.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "arch/model_config.h"
#include "nn/bit_linear.h"
#include "nn/fused_ops.h"
#include "nn/input_transform.h"
#include "nn/precision.h"
#include "nn/tensor_group.h"

namespace tern::model {

struct Parameter {
  ParameterSpec spec;
  at::Tensor value;      // fp32, leaf, requires a gradient
  double lr_factor = 1;  // Its learning rate / the schedule's
};

// B sequences of T tokens; M = B * T rows.
struct DecoderInput {
  at::Tensor tokens_BT;        // int64, values below V
  at::Tensor positions_BT;     // int32; defined for packed documents, else 0..T-1 for each sequence
  at::Tensor document_ids_BT;  // int32; defined when attention must stop at document borders
};

// Tensors from inside the forward pass, for losses on features and for calibration. They belong to
// the autograd graph. Not with checkpoint_blocks: a block's inner tensors are not kept there.
struct LayerFeatures {
  at::Tensor q_MD, k_MD, v_MD;  // [M, heads * E], with bias and QK norm, before RoPE
  at::Tensor o_input_MD;        // [M, H * E]: attention's output before its sub-norm
  at::Tensor down_input_MF;     // act(gate) * up before its sub-norm
  at::Tensor hidden_MD;         // The block's output
  at::Tensor input_MD;          // And its input
};
struct Capture {
  std::set<int64_t> layers;  // Whose features are wanted
  // input_MD has a gradient also where nothing before the block is trained.
  bool differentiates_inputs = false;
  std::map<int64_t, LayerFeatures> features;  // Filled by the forward pass
};

// Keys (after RoPE) and values of the tokens that have been run, for writing text token by token.
// All sequences of a batch have as many.
struct KeyValueCache {
  std::vector<at::Tensor> k_BTJE, v_BTJE;  // A layer each, with room for `capacity` tokens
  int64_t length = 0;
  int64_t capacity = 0;
};

struct ForwardOptions {
  nn::ComputeType compute = nn::ComputeType::kFp32;
  bool checkpoint_blocks = false;  // Keep only each block's input, run it again in backward
  nn::BitLinearObserver* observer = nullptr;
  Capture* capture = nullptr;
  double quantized_share = 1;          // Of BitLinear and of quantized inputs; nn/bit_linear.h
  nn::WeightSource* source = nullptr;  // Not null: BitLinear matrices are spread over ranks
  // Not null: this rank's parameters of attention and FFN are slices (plan/tensor_split.h), and the
  // group's ranks make each product together. All of them run the same input.
  nn::TensorGroup* tensor = nullptr;
  // Not null: the input goes on where the cache ends, and is added to it. Without gradients; one
  // token a sequence unless the cache is empty; no documents.
  KeyValueCache* cache = nullptr;
};

// Where the part of a parameter that a rank has begins in the whole.
struct Place {
  int64_t first_row = 0, first_column = 0;
};

class Decoder {
 public:
  // Parameters are allocated, not initialised. Throws RecipeError for a config that breaks a rule.
  explicit Decoder(const ModelConfig& config, const at::Device& device = at::kCPU);

  // Normal(0, init_std) for matrices, 1 for norm gains, 0 for biases; a pure function of (seed,
  // parameter name), also of parameters that are here in parts.
  void Initialize(uint64_t seed);
  // Takes the values of a decoder whose parameters are whole. Norms may be others: those that it
  // lacks stay, those that this lacks are left out.
  void CopyFrom(const Decoder& whole);

  // Output of the last norm, [M, D].
  at::Tensor Hidden(const DecoderInput& input, const ForwardOptions& options) const;
  // Hidden times the head: logits [M, V].
  at::Tensor Logits(const DecoderInput& input, const ForwardOptions& options) const;

  // A copy in the memory of another device, parameters without gradients where they had none; on
  // its own device the same tensors.
  Decoder To(const at::Device& device) const;
  at::Device device() const { return parameters_.front().value.device(); }
  // The same decoder with other tensors in place of these parameters (by name, of their shapes):
  // what a fake quantizer makes of them. All other tensors are shared.
  Decoder With(const std::map<std::string, at::Tensor>& values) const;
  // The same decoder whose layers (names of their matrices) transform their inputs so.
  Decoder WithInputs(std::map<std::string, nn::InputTransform> inputs) const;
  const std::map<std::string, nn::InputTransform>& inputs() const { return inputs_; }

  const ModelConfig& config() const { return config_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  // Replaces a linear layer's matrix or bias by a part of it, fp32, not initialised. Forward then
  // needs ForwardOptions::tensor, or a source that has the codes of a whole BitLinear matrix.
  void KeepPart(size_t parameter, const at::Tensor& part, const Place& place);
  // Throws BugError for an unknown name.
  const at::Tensor& Get(std::string_view name) const;
  const at::Tensor& HeadWeight() const;  // [V, D]; the embedding when tied

 private:
  struct Matrix {
    at::Tensor w_NK;
    at::Tensor norm_K;  // Of its own; undefined: none
    nn::InputTransform inputs;
  };
  struct Layer {
    at::Tensor input_norm, post_norm;  // Undefined: no pre-norms
    Matrix q, k, v, o, gate, up, down;
    at::Tensor q_norm, k_norm;
    at::Tensor q_bias, k_bias, v_bias;
  };
  struct BlockInput {
    int64_t batch, tokens;
    at::Tensor positions_M;  // int32
    at::Tensor mask_B1TT;    // Undefined: plain causal
    int64_t layer = 0;
  };

  BlockInput Begin(const DecoderInput& input, const ForwardOptions& options) const;
  // Layers hold the tensors of parameters_.
  void MakeLayers();
  // `features`: where this block's go, or null.
  at::Tensor Block(const Layer& layer, const at::Tensor& x_MD, const BlockInput& input,
                   const ForwardOptions& options, LayerFeatures* features) const;
  at::Tensor Attention(const Layer& layer, const at::Tensor& n_MD, const BlockInput& input,
                       const ForwardOptions& options, LayerFeatures* features) const;
  // x, or what a norm with this gain makes of it; undefined: none.
  at::Tensor Norm(const at::Tensor& x_MK, const at::Tensor& gain_K) const;
  // Products with matrices that read the block's stream: q, k and v, or gate and up. names: told to
  // the observer, of all together or, where each has a norm of its own, one each.
  std::vector<at::Tensor> Project(const at::Tensor& n_MD, const std::vector<Matrix>& matrices,
                                  const std::vector<const char*>& names,
                                  const ForwardOptions& options) const;
  // The product with o or down, whose columns ranks share.
  at::Tensor Output(const at::Tensor& x_MK, const Matrix& matrix, const char* name,
                    const ForwardOptions& options) const;
  at::Tensor FeedForward(const Layer& layer, const at::Tensor& n_MD, const ForwardOptions& options,
                         LayerFeatures* features) const;
  // Products with matrices of one input. columns: null, or whose columns the matrices are.
  std::vector<at::Tensor> Linear(const at::Tensor& x_MK, const std::vector<Matrix>& matrices,
                                 const char* group, const ForwardOptions& options,
                                 nn::TensorGroup* columns = nullptr) const;

  ModelConfig config_;
  std::vector<Parameter> parameters_;
  std::vector<Place> places_;                         // Of their values in the whole
  std::map<std::string, nn::InputTransform> inputs_;  // By matrix; none: as they are
  std::vector<Layer> layers_;
  nn::RopeTables rope_;
};

}  // namespace tern::model
