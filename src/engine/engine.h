// Runs a packed model on the CPU without libtorch. BitLinear layers compute the trainer's integers
// and scales (ARCHITECTURE.md, "Numbers of BitLinear"); norms, RoPE and softmax are fp32.
// An engine may serve several decoders (decoder.h) and sessions (session.h), one call at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "engine/model_weights.h"

namespace tern::engine {

class Engine {
 public:
  // num_threads < 1: all processors. Takes the weights, and moves what every token reads into huge
  // pages; throws BugError when their shapes do not fit the config.
  Engine(ModelWeights weights, int num_threads);

  const ModelWeights& weights() const { return weights_; }
  const ModelConfig& config() const { return weights_.config; }
  const ParallelFor& parallel() const { return parallel_; }
  // Of the GGUF file or the Hugging Face folder; nothing when it has none.
  const std::optional<text::ChatTemplate>& chat_template() const { return weights_.chat_template; }

 private:
  ModelWeights weights_;
  ThreadPool pool_;
  ParallelFor parallel_;
};

enum class LogitsOf { kLast, kAll };

}  // namespace tern::engine
