// Runs a ternary model on a device (kernels/device): the same steps as Session, with the weights,
// the key-value cache and all values in between in the device's memory. All steps have the numbers
// of the CPU kernels, so logits are those of a Session with the same type of cache (fp16 or int8)
// bit for bit. One allocation for the weights of a model, one for a sequence, none a token.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/model_weights.h"
#include "kernels/device/device.h"

namespace tern::engine {

// Weights of a model on a device.
class DeviceModel {
 public:
  // Uploads. Throws InputError for a model that a device does not run (a linear layer that is not
  // ternary, float activations, heads wider than 256), ResourceError when it does not fit. Both
  // must outlive this.
  DeviceModel(const ModelWeights& weights, kernels::Device& device);

  struct Linear {
    const uint8_t* t2;
    float scale;
    int n, k, padded_k;
  };
  struct Layer {
    const float *input_norm, *q_norm, *k_norm, *attn_sub_norm, *post_norm, *ffn_sub_norm;
    Linear q, k, v, o, gate, up, down;
  };

  const ModelWeights& weights() const { return weights_; }
  const ModelConfig& config() const { return weights_.config; }
  kernels::Device& device() const { return device_; }
  const std::vector<Layer>& layers() const { return layers_; }
  const kernels::TableView& embedding() const { return embedding_; }
  const kernels::TableView& head() const { return head_; }
  const float* final_norm() const { return final_norm_; }
  int64_t size_bytes() const { return memory_.size_bytes(); }

 private:
  class Uploader;
  void Place(Uploader* uploader);

  const ModelWeights& weights_;
  kernels::Device& device_;
  kernels::DeviceMemory memory_;
  std::vector<Layer> layers_;
  kernels::TableView embedding_, head_;
  const float* final_norm_ = nullptr;
};

// One sequence. As Session, but that an exception of the device leaves it without use.
class DeviceSession {
 public:
  // Throws UsageError for an fp32 cache, ResourceError when the buffers do not fit.
  explicit DeviceSession(const DeviceModel& model, int64_t capacity = 0,
                         kernels::KvType cache = kernels::KvType::kF16);

  // As Session::Append; throws ResourceError too.
  std::vector<float> Append(std::span<const int32_t> tokens, LogitsOf which = LogitsOf::kLast);
  // Appends and returns the most probable next token, chosen on the device: the lowest id of the
  // highest logit. Throws NumericError when a logit is NaN or +Inf, or all are -Inf.
  int32_t AppendGreedy(std::span<const int32_t> tokens);

  int64_t size() const { return size_; }
  int64_t capacity() const { return capacity_; }

 private:
  // Device pointers into memory_.
  struct Buffers {
    float *x, *y, *q, *k, *v, *attended, *gate, *up, *hidden, *logits;
    float *gamma, *inv_rms, *out_scale, *states, *rope_cos, *rope_sin;
    int8_t* codes;
    int32_t *sum, *ids, *positions, *pages, *chosen;
    std::vector<char*> caches;
  };

  void CheckTokens(std::span<const int32_t> tokens) const;
  Buffers Place(char* base, int64_t* size_bytes) const;
  void Chunk(std::span<const int32_t> tokens, LogitsOf which);
  void Attention(const DeviceModel::Layer& layer, const kernels::KvPages& cache, int64_t m);
  void FeedForward(const DeviceModel::Layer& layer, int64_t m);
  // codes = quantized x, normalised first where there is a gain.
  void Quantize(const float* x, const float* gain, int64_t m, int64_t k);
  void Multiply(const DeviceModel::Linear& linear, int64_t m, float* y);

  const DeviceModel& model_;
  kernels::Device& device_;
  int64_t capacity_, size_ = 0, pages_, widest_, segments_;
  kernels::KvType cache_type_;
  kernels::DeviceMemory memory_, host_;
  Buffers at_;
};

}  // namespace tern::engine
