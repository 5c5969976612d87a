// Perplexity of a decoder on a split: exp of the mean negative log-likelihood. Protocol: the split
// is cut into consecutive windows of T + 1 tokens that overlap by one, so that every token but the
// first is predicted exactly once, with the tokens of its own window before it as context (packed
// documents: of its own document); the last window may be shorter. Tokens without a label (prompts,
// padding, with packed documents the first of each) are context and not predicted. Everything in
// fp32, with the quantized forward that is shipped.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/stop_signal.h"
#include "data/batch.h"
#include "data/token_source.h"
#include "model/decoder.h"
#include "parallel/group.h"

namespace tern::eval {

struct PerplexityOptions {
  data::Split split = data::Split::kValidation;
  int64_t sequence_length = 256;  // T
  int64_t max_tokens = 0;         // Tokens at most, in whole windows (one at least); 0: all
  int64_t batch = 8;  // Windows a forward pass; has no influence on the result but rounding
  data::Packing packing = data::Packing::kStream;  // kDocuments: context stops at document borders
  std::function<void(int64_t done, int64_t all)> progress;  // Optional, in windows
  // Not null: the ranks take the forward passes in turn, and all return the same result, with the
  // bits of one rank: the passes' sums are added in their order, whoever made them.
  parallel::Group* group = nullptr;
  nn::WeightSource* source = nullptr;  // Of a decoder whose matrices are spread over ranks
  nn::TensorGroup* tensor = nullptr;   // Of one whose ranks make each product together
  // Asked before each pass; ranks that make passes together must be told the same.
  std::function<bool()> stop_requested = StopRequested;
};

// The windows that are read: those whose targets, with a label or not, together stay within
// max_tokens, one at least. Throws InputError when the split holds fewer than two tokens.
std::vector<data::EvalWindow> WindowsToRead(const data::TokenSource& tokens,
                                            const PerplexityOptions& options);

struct PerplexityResult {
  double loss = 0;        // Mean negative log-likelihood, nats a token
  double perplexity = 0;  // exp(loss)
  int64_t tokens = 0;     // Predicted tokens, those with a label
  bool complete = true;   // False: a stop signal ended it early
};

// Throws InputError when `targets`, the predicted tokens of a split, are none.
void CheckPredicted(int64_t targets, data::Split split);

// Throws as WindowsToRead, and InputError when no token that is read has a label.
PerplexityResult Perplexity(const model::Decoder& decoder, const data::TokenSource& tokens,
                            const PerplexityOptions& options);

}  // namespace tern::eval
