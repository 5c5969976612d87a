// What every ModelScorer does with a row of logits: the score of a given token, the greedy choice,
// and a text that grows by such choices until its model, its request or its room ends it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/stop_filter.h"
#include "tasks/scorer.h"
#include "text/tokenizer.h"

namespace tern::tasks {

// logits: [v] fp32; 0 <= target < v. The logarithm is not finite when the logits are not.
TokenScore ScoreOf(const float* logits, int64_t v, int32_t target);

class GreedyText {
 public:
  // `stop_tokens`: end the text as EOS does. `max_length`: tokens of the prompt and the text
  // together. The tokenizer must outlive this.
  GreedyText(const GenerateRequest& request, const text::Tokenizer& tokenizer,
             std::vector<int32_t> stop_tokens, int64_t max_length);

  // Takes the most probable token, of equals the first; returns whether the text goes on with it as
  // the next input. Rows beyond the vocabulary are padding and are never chosen. Throws
  // NumericError, which names `source`, for logits that are not finite.
  bool Take(std::span<const float> logits, const std::string& source);
  int32_t last() const { return last_; }
  // Once, when it has ended.
  std::string Finish();

 private:
  const text::Tokenizer& tokenizer_;
  std::vector<int32_t> stop_tokens_;
  engine::StopFilter filter_;
  text::StreamDecoder decoder_;
  std::string text_;
  int64_t left_;  // Tokens that may still be chosen
  int32_t last_ = -1;
};

}  // namespace tern::tasks
