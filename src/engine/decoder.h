// The forward pass of the engine: rows of tokens, of one sequence or of many, through all layers.
// A row depends on its own sequence alone, so its logits have the same bits in every batch, however
// a prompt is cut into calls, on any number of threads and on every instruction set.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/kv_cache.h"
#include "engine/layer_pass.h"
#include "engine/linear.h"

namespace tern::engine {

class Decoder {
 public:
  // Sequences of up to `capacity` tokens each (at most the model's context). Its buffers
  // are kept from call to call. Both must outlive this.
  Decoder(const Engine& engine, KvCache& cache, int64_t capacity);

  struct Request {
    Sequence* sequence;  // Of the cache; each once a call
    std::span<const int32_t> tokens;
    LogitsOf which = LogitsOf::kLast;
  };
  // Appends each request's tokens to its sequence and returns its logits, [count or 1, V] fp32.
  // Throws InputError for no tokens, ids outside of the vocabulary and a sequence that would pass
  // the capacity, ResourceError when the cache is full; all sequences are then as they were.
  std::vector<std::vector<float>> Run(std::span<const Request> requests);

  int64_t capacity() const { return capacity_; }

 private:
  // A run of rows that belong to one request.
  struct Part {
    size_t request;
    int64_t begin, count;  // Of its tokens
  };

  void Check(const Request& request) const;
  void Chunk(std::span<const Request> requests, std::span<const Part> parts,
             std::vector<std::vector<float>>* logits);
  int64_t FillRows(std::span<const Request> requests, std::span<const Part> parts);
  void AppendLogits(std::span<const Request> requests, std::span<const Part> parts,
                    std::vector<std::vector<float>>* logits);

  const Engine& engine_;
  KvCache& cache_;
  int64_t capacity_;
  LayerPass pass_;
  LinearInput head_input_;
  std::vector<int32_t> positions_, sequence_of_;  // Of each row
  std::vector<int32_t> tables_;                   // [parts, pages of capacity]
  std::vector<float> x_, head_rows_;
};

}  // namespace tern::engine
