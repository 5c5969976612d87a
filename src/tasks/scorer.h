// What an evaluation asks of a model: log-probabilities of given continuations, greedy text, and
// whole rows of logits. The engine answers through engine_scorer.h; a model of another kind (a
// checkpoint in libtorch) is evaluated by the same code once it has an adapter of its own. Results
// must not depend on how requests are grouped: evaluations are resumed in other groups.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "text/tokenizer.h"

namespace tern::tasks {

// tokens[first_scored ..] are scored, each given all tokens before it. REQUIRES: 1 <= first_scored
// <= size; size <= max_length() + 1, as the last token is only predicted.
struct ScoreRequest {
  std::vector<int32_t> tokens;
  int64_t first_scored = 1;
};

struct TokenScore {
  float logprob = 0;    // Natural logarithm
  bool greedy = false;  // No token has a higher logit, nor an equal one with a lower id
};

struct GenerateRequest {
  std::vector<int32_t> tokens;  // At least one, at most max_length()
  int64_t max_tokens = 0;
  std::vector<std::string> stop;  // The text ends before the first of these
};

// The logits of one text, position by position.
class LogitStream {
 public:
  virtual ~LogitStream() = default;
  // [count, vocab_size()] fp32 of the next positions. REQUIRES: the text has as many left.
  virtual std::vector<float> Next(int64_t count) = 0;
};

class ModelScorer {
 public:
  using OnScores = std::function<void(size_t request, std::vector<TokenScore> scores)>;
  using OnText = std::function<void(size_t request, std::string text)>;

  virtual ~ModelScorer() = default;
  virtual int64_t max_length() const = 0;  // Tokens that one text may have
  virtual int64_t vocab_size() const = 0;
  virtual const text::Tokenizer* tokenizer() const = 0;  // Null: the model has none
  virtual const std::string& source() const = 0;         // For messages

  // Calls `done` once for each request, in any order, as soon as its scores are there; what `done`
  // throws ends the call. Throws InputError (ids outside of the vocabulary, too many tokens),
  // NumericError for logits that are not finite.
  virtual void Score(std::span<const ScoreRequest> requests, const OnScores& done) = 0;
  // Greedy decoding until EOS, a stop string, max_tokens or a full context. Throws as Score, and
  // InputError without a tokenizer.
  virtual void Generate(std::span<const GenerateRequest> requests, const OnText& done) = 0;
  // `tokens` must outlive the stream; one stream at a time.
  virtual std::unique_ptr<LogitStream> Stream(std::span<const int32_t> tokens) = 0;
  // For loops over what it gave.
  virtual const ParallelFor& parallel() const = 0;
  // Tokens that went through the model so far, those that shared a prefix counted once.
  virtual int64_t tokens_run() const = 0;
};

}  // namespace tern::tasks
