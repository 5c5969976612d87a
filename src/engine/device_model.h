// The weights of a model on a device (kernels/device), in one allocation. Any model that the engine
// reads: ternary layers with int8 activations, 4-bit layers with 16-bit ones, all others as floats
// or codes that fp32 activations, or those that a folder asks for, are multiplied with
// (device_matrix.h, device_linear.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/device_matrix.h"
#include "engine/model_weights.h"
#include "kernels/device/device.h"

namespace tern::engine {

class DeviceModel {
 public:
  // Uploads. Activations of codes are fp32, or rounded as a folder asks when the weights say so
  // (SetActivations); UsageError for int8 ones, which a device does not make. Throws InputError for
  // a model that a device does not run (heads wider than 256), ResourceError when it does not fit.
  // Both must outlive this.
  DeviceModel(const ModelWeights& weights, kernels::Device& device);

  struct Layer {
    // Null: not there. As in LayerWeights.
    const float *input_norm, *post_norm, *q_norm, *k_norm;
    const float *q_in, *k_in, *v_in, *o_in, *gate_in, *up_in, *down_in;
    const float *q_bias, *k_bias, *v_bias;
    DeviceMatrix q, k, v, o, gate, up, down;
  };

  const ModelWeights& weights() const { return weights_; }
  const ModelConfig& config() const { return weights_.config; }
  kernels::Device& device() const { return device_; }
  const std::vector<Layer>& layers() const { return layers_; }
  const kernels::TableView& embedding() const { return embedding_; }
  const kernels::TableView& head() const { return head_; }
  const float* final_norm() const { return final_norm_; }
  int64_t size_bytes() const { return memory_.size_bytes(); }
  // Weights of the largest matrix that the dense product wants expanded to fp16; 0: none.
  int64_t ExpandedWeights() const { return expanded_; }
  bool RoundsInputs() const { return rounds_inputs_; }  // Of some matrix
  // For people: which kernels multiply how many matrices, and what is no kernel of ours.
  std::string Describe() const;

 private:
  void Place(DeviceUploader* uploader);

  const ModelWeights& weights_;
  kernels::Device& device_;
  kernels::DeviceMemory memory_;
  std::vector<Layer> layers_;
  kernels::TableView embedding_, head_;
  const float* final_norm_ = nullptr;
  int64_t expanded_ = 0;
  bool rounds_inputs_ = false;
};

}  // namespace tern::engine
