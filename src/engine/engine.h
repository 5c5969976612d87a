// Runs a packed model on the CPU without libtorch. BitLinear layers compute the trainer's integers
// and scales (ARCHITECTURE.md, "Numbers of BitLinear"); norms, RoPE and softmax are fp32. A Session
// is one sequence with its key-value cache. An engine may serve several sessions, one call at a
// time.
#pragma once

#include <cstdint>
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

 private:
  ModelWeights weights_;
  ThreadPool pool_;
  ParallelFor parallel_;
};

enum class LogitsOf { kLast, kAll };

class Session {
 public:
  // `capacity`: tokens this sequence may hold, at most the model's context; 0: the whole context.
  // The cache is 2 * layers * capacity * kv_heads * head_dim fp32, and the angles of RoPE
  // are computed for as many positions: ask for no more than needed. The engine must outlive the
  // session.
  explicit Session(const Engine& engine, int64_t capacity = 0);

  // Appends tokens to the sequence and returns logits [count or 1, V], fp32. The logits of a
  // position have the same bits however the sequence is cut into calls, on any number of threads
  // and on every instruction set. Throws InputError for ids outside of the vocabulary and when the
  // sequence would pass its capacity; the sequence is then as it was.
  std::vector<float> Append(std::span<const int32_t> tokens, LogitsOf which = LogitsOf::kLast);

  int64_t size() const { return size_; }
  int64_t capacity() const { return capacity_; }

 private:
  // Keys and values of one layer, [capacity, J * E].
  struct LayerCache {
    std::vector<float> keys, values;
  };

  std::vector<float> Chunk(std::span<const int32_t> tokens, LogitsOf which);
  void Attention(const LayerWeights& layer, LayerCache& cache, int64_t m, std::vector<float>& x_MD);
  void FeedForward(const LayerWeights& layer, int64_t m, std::vector<float>& x_MD);
  std::vector<float> Attend(const LayerCache& cache, const std::vector<float>& q, int64_t m) const;

  const Engine& engine_;
  int64_t capacity_, size_ = 0;
  std::vector<LayerCache> caches_;
  std::vector<int32_t> positions_;          // Of the chunk at work
  std::vector<float> rope_cos_, rope_sin_;  // [capacity, E/2]
};

}  // namespace tern::engine
