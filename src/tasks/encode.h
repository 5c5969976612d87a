// Texts as the tokens that are scored, by the rules of lm-evaluation-harness, so that numbers
// compare: context and continuation are encoded together and parted where the context alone ends;
// spaces at the context's end belong to the continuation; what is too long loses its beginning.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tasks/scorer.h"
#include "tasks/windows.h"

namespace tern::tasks {

class Encoder {
 public:
  // `bos`: texts begin with BOS. Throws UsageError when the tokenizer begins no text so (its bos_id
  // is -1, whatever else its vocabulary has), InputError when the scorer has no tokenizer. Both
  // must outlive this.
  Encoder(const ModelScorer& scorer, bool bos);

  // BOS, where texts begin so, and the tokens of the text.
  std::vector<int32_t> Text(std::string_view text) const;
  // An empty context is BOS, or else EOS. Throws InputError when the continuation has no tokens of
  // its own, or more than a text may have.
  ScoreRequest Pair(std::string context, std::string continuation) const;
  // Room for `max_tokens` new ones is left.
  GenerateRequest Prompt(std::string_view prompt, int64_t max_tokens,
                         std::vector<std::string> stop) const;

  // The window as a text of its own.
  ScoreRequest Cut(const std::vector<int32_t>& ids, const Window& window,
                   const PerplexityProtocol& protocol) const;

 private:
  const ModelScorer& scorer_;
  const text::Tokenizer& tokenizer_;
  bool bos_;
};

}  // namespace tern::tasks
