// One choice of a request, from its prompt to its last token: which tokens to run next, and what
// becomes of the logits that come back. The rules of choosing and ending are those of
// engine/generate.h, so the text is the one that the engine alone gives. One thread at a time;
// knows nothing of other choices, queues or HTTP.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/model_weights.h"
#include "engine/sampler.h"
#include "engine/stop_filter.h"
#include "text/tokenizer.h"

namespace tern::serve {

struct GenerationRequest {
  std::vector<int32_t> tokens;  // The prompt, at least one
  int64_t max_tokens = 16;
  engine::SamplingOptions sampling;
  std::vector<std::string> stop;
  int64_t top_logprobs = -1;     // -1: no log probabilities; 0: of the tokens alone
  bool prompt_logprobs = false;  // Of the prompt's tokens, too
  bool ignore_eos = false;       // The model cannot end the text
};

// A token with its log probability (natural, of the whole vocabulary at temperature 1).
struct ScoredToken {
  int32_t id = 0;
  std::string text;                             // That it completes, maybe none
  std::optional<double> logprob;                // Absent: not asked for, or the first token
  std::vector<std::pair<int32_t, double>> top;  // Best first, ties by id
};

// log softmax(logits)[id], and the `top` most probable tokens. fp64 sum, in order of ids.
ScoredToken ScoreToken(std::span<const float> logits, int32_t id, int64_t top);

enum class FinishReason { kStop, kLength };

// What one step brought.
struct Progress {
  std::string text;                         // Before any stop string; whole UTF-8
  std::vector<ScoredToken> prompt, tokens;  // Of the prompt (prompt_logprobs), and new ones
  std::optional<FinishReason> finish;
};

class Generation {
 public:
  // `weights` must outlive it and have a tokenizer. Throws UsageError (sampling, stop).
  Generation(const engine::ModelWeights& weights, GenerationRequest request,
             engine::KvCache& cache);

  // Tokens that are not in the cache yet: of the prompt, or all after a Restart.
  std::span<const int32_t> Pending() const {
    return std::span(tokens_).subspan(static_cast<size_t>(sequence_.size()));
  }
  engine::Sequence& sequence() { return sequence_; }
  const engine::Sequence& sequence() const { return sequence_; }
  // Rows of the prompt are still to be scored: the logits of all rows are wanted.
  bool WantsAllRows() const;
  int64_t prompt_tokens() const { return prompt_tokens_; }
  int64_t generated() const { return generated_; }

  // After the first `count` pending tokens have been run. `logits`: [count, V] when WantsAllRows()
  // was true, else [1, V] of the last. Throws NumericError (Sampler).
  Progress Take(int64_t count, std::span<const float> logits);

  // Gives its pages back; everything so far will be run again.
  void Restart() { sequence_.Truncate(0); }

  // Begins behind what `other` has in common with the first `common` tokens, but for the last
  // pending one, whose logits choose. REQUIRES: nothing was run. Returns the tokens saved.
  int64_t BeginWith(const engine::Sequence& other, int64_t common);
  // Whether the logits of no token of the prompt but the last are wanted.
  bool MayBeginWithin() const { return !request_.prompt_logprobs; }
  std::span<const int32_t> tokens() const { return tokens_; }  // Prompt and new ones
  // The tokens that were run; and the sequence, for others to begin with: the last call.
  std::span<const int32_t> Ran() const {
    return std::span(tokens_).first(static_cast<size_t>(sequence_.size()));
  }
  engine::Sequence TakeSequence() { return std::move(sequence_); }

 private:
  void ScorePrompt(int64_t begin, std::span<const float> logits, Progress* progress);
  void Choose(std::span<const float> logits, Progress* progress);

  const engine::ModelWeights& weights_;
  GenerationRequest request_;
  engine::Sequence sequence_;
  std::vector<int32_t> tokens_;  // Prompt and new ones
  int64_t prompt_tokens_;
  int64_t scored_ = 0;   // Prompt tokens that have been given out
  ScoredToken carried_;  // Of token scored_, when its row is of an earlier call
  int64_t generated_ = 0;
  engine::Sampler sampler_;
  engine::StopFilter filter_;
  text::StreamDecoder decoder_;
};

}  // namespace tern::serve
