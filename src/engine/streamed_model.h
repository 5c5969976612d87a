// The logits of one text by a model of which one layer is in memory at a time, for comparisons of
// models that need not fit in memory. Beside the layer there are the hidden states (4 D bytes a
// token), the keys and values of one layer, and the head, of which 16-bit and block types stay in
// the file. The bits are those of a Session in fp32 that has the same text.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "engine/model_source.h"

namespace tern::engine {

class StreamedModel {
 public:
  // Reads the model and runs all layers. num_threads < 1: all processors. Throws InputError for no
  // tokens, more than the model's context and ids outside of its vocabulary; FormatError also for a
  // tensor that has no place in the model, as LoadModel.
  StreamedModel(const std::string& path, std::span<const int32_t> tokens, int num_threads);

  const ModelConfig& config() const { return source_->config(); }
  int64_t num_tokens() const { return num_tokens_; }
  // Of the tokens [begin, end), [end - begin, V] fp32.
  std::vector<float> Logits(int64_t begin, int64_t end);

 private:
  void ReadTables(std::span<const int32_t> tokens);
  void RunLayers();

  std::unique_ptr<ModelSource> source_;
  ThreadPool pool_;
  ParallelFor parallel_;
  int64_t num_tokens_;
  std::vector<float> final_norm_, x_TD_;
  TableMatrix head_;
};

}  // namespace tern::engine
