// One layer of the engine's forward pass over rows of tokens: the same arithmetic for a model in
// memory (decoder.h) and for one that is read layer by layer (streamed_model.h).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "base/parallel.h"
#include "engine/linear.h"
#include "engine/model_weights.h"
#include "kernels/attention/attention.h"

namespace tern::engine {

// Rows of one pass: enough for the tiles of the products, few enough for small buffers.
inline constexpr int64_t kPassRows = 256;

class LayerPass {
 public:
  // Rows at positions below `positions`. Its buffers are kept from call to call. `config` and
  // `parallel` must outlive this.
  LayerPass(const ModelConfig& config, ActivationRule activation, CodeActivations code_activations,
            int64_t positions, const ParallelFor& parallel);

  // x: [rows.m, D], becomes the output of that layer of the model. Writes the rows' keys and values
  // into `cache`, the layer's. REQUIRES: rows.m <= kPassRows, pages of the cache for all positions
  // of the rows.
  void Run(int64_t index, const LayerWeights& layer, const kernels::KvPages& cache,
           const kernels::KvRows& rows, float* x);

 private:
  void Attention(const LayerWeights& layer, int64_t window, const kernels::KvPages& cache,
                 const kernels::KvRows& rows, float* x);
  void FeedForward(const LayerWeights& layer, int64_t m, float* x);
  // Matrices that read one input [m, D], each behind the norm of its own if it has one.
  struct Branch {
    const LinearMatrix& w;
    const std::vector<float>& own_norm;
    float* y;
  };
  void Project(const float* x, int64_t m, const std::vector<float>& pre_norm,
               std::initializer_list<Branch> branches);

  const ModelConfig& config_;
  ActivationRule activation_;
  const ParallelFor& parallel_;
  LinearInput input_;
  std::vector<float> rope_cos_, rope_sin_;  // [positions, E/2]
  std::vector<float> q_, k_, v_, gate_, up_, sum_, normed_, inverse_rms_;
};

}  // namespace tern::engine
