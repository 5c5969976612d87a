// Whole texts through a model at once, for programs that want the logits of every token of a batch
// and no next one: a teacher. Layer by layer over all texts, so that the only keys and values kept
// are those of one layer and of the texts that kPassRows rows touch. Owns neither weights nor
// threads. A row depends on its own text alone: its bits are those of a Session in fp32 that has
// the same text, whatever the batch, on any number of threads and on every instruction set.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/layer_pass.h"
#include "engine/linear.h"
#include "engine/model_weights.h"

namespace tern::engine {

class TextPass {
 public:
  // Texts of up to `longest` tokens. Throws InputError when that is more than the model's context.
  // Its buffers are kept from call to call. `weights` and `parallel` must outlive this.
  TextPass(const ModelWeights& weights, int64_t longest, const ParallelFor& parallel);

  // The states [M, D] of the tokens of all texts, one after the other, before the last norm. Throws
  // InputError for an empty text, one that is too long and ids outside of the vocabulary.
  void Run(std::span<const std::span<const int32_t>> texts, float* x_MD);
  // Logits [rows, V] of such states.
  void Logits(const float* x_MD, int64_t rows, float* logits);

  // What the buffers take at most, for texts of `shortest` to `longest` tokens.
  static int64_t BufferBytes(const ModelConfig& config, int64_t shortest, int64_t longest);

 private:
  // A run of rows of one text.
  struct Part {
    size_t text;
    int64_t begin, count;
  };
  void CheckTexts(std::span<const std::span<const int32_t>> texts) const;
  // Parts of kPassRows rows each, the last ones of fewer.
  static std::vector<std::vector<Part>> Chunks(std::span<const std::span<const int32_t>> texts);
  void RunLayer(int64_t layer, std::span<const std::span<const int32_t>> texts,
                std::span<const std::vector<Part>> chunks, float* x_MD);

  const ModelWeights& weights_;
  const ParallelFor& parallel_;
  int64_t longest_;
  LayerPass pass_;
  LinearInput head_input_;
  KvCache cache_;                                 // Of one layer
  std::vector<int32_t> positions_, sequence_of_;  // Of each row
  std::vector<int32_t> tables_;                   // [parts, pages of the longest]
};

}  // namespace tern::engine
