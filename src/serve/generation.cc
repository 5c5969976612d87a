// See generation.h.
#include "serve/generation.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace tern::serve {

ScoredToken ScoreToken(std::span<const float> logits, int32_t id, int64_t top) {
  // The `top` best so far, best first: few, so insertion is cheap; of equals the first id stays.
  std::vector<int32_t> best;
  const auto wanted = static_cast<size_t>(std::min<int64_t>(top, std::ssize(logits)));
  for (size_t i = 0; i < logits.size() && wanted > 0; ++i) {
    if (best.size() == wanted && !(logits[i] > logits[static_cast<size_t>(best.back())])) continue;
    size_t at = best.size();
    while (at > 0 && logits[i] > logits[static_cast<size_t>(best[at - 1])]) --at;
    best.insert(best.begin() + static_cast<int64_t>(at), static_cast<int32_t>(i));
    if (best.size() > wanted) best.pop_back();
  }
  const float highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += static_cast<double>(std::exp(logit - highest));
  const double log_sum = static_cast<double>(highest) + std::log(sum);
  const auto logprob = [&](int32_t token) {
    return static_cast<double>(logits[static_cast<size_t>(token)]) - log_sum;
  };
  ScoredToken scored{id, "", logprob(id), {}};
  for (const int32_t token : best) scored.top.emplace_back(token, logprob(token));
  return scored;
}

Generation::Generation(const engine::ModelWeights& weights, GenerationRequest request,
                       engine::KvCache& cache)
    : weights_(weights),
      request_(std::move(request)),
      sequence_(cache),
      tokens_(request_.tokens),
      prompt_tokens_(std::ssize(tokens_)),
      sampler_(request_.sampling),
      filter_(request_.stop),
      decoder_(*weights.tokenizer) {
  TERN_CHECK(!tokens_.empty(), "a generation without a prompt");
  sampler_.Remember(tokens_);
}

bool Generation::WantsAllRows() const {
  return request_.prompt_logprobs && sequence_.size() + 1 < prompt_tokens_ &&
         scored_ < prompt_tokens_;
}

Progress Generation::Take(int64_t count, std::span<const float> logits) {
  Progress progress;
  const int64_t end = sequence_.size(), vocab_size = weights_.config.vocab_size;
  // The decoder's spaces depend on what came before; the prompt passes through it once.
  const int64_t shown = std::min(end, prompt_tokens_);
  const auto rows = std::ssize(logits) / vocab_size;
  for (; scored_ < shown; ++scored_) {
    const int32_t id = tokens_[static_cast<size_t>(scored_)];
    ScoredToken token{id, "", {}, {}};
    if (request_.prompt_logprobs && scored_ > 0) {
      // Token t is predicted by row t - 1; the first row here is that of token end - count.
      const int64_t row = scored_ - 1 - (end - count);
      token = row >= 0 ? ScoreToken(logits.subspan(static_cast<size_t>(row * vocab_size),
                                                   static_cast<size_t>(vocab_size)),
                                    id, request_.top_logprobs)
                       : std::move(carried_);
    }
    token.text = decoder_.Push(id);
    if (request_.prompt_logprobs) progress.prompt.push_back(std::move(token));
  }
  if (request_.prompt_logprobs && scored_ < prompt_tokens_ && end == scored_) {
    // The last row predicts the first token of the next call.
    carried_ = ScoreToken(logits.last(static_cast<size_t>(vocab_size)),
                          tokens_[static_cast<size_t>(scored_)], request_.top_logprobs);
  }
  TERN_CHECK(rows >= 1, "no logits");
  if (Pending().empty()) Choose(logits.last(static_cast<size_t>(vocab_size)), &progress);
  return progress;
}

int64_t Generation::BeginWith(const engine::Sequence& other, int64_t common) {
  return sequence_.BeginWith(other, std::min(common, std::ssize(tokens_) - 1));
}

void Generation::Choose(std::span<const float> logits, Progress* progress) {
  const text::Tokenizer& tokenizer = *weights_.tokenizer;
  if (request_.max_tokens == 0) {
    progress->finish = FinishReason::kLength;
    return;
  }
  // Models may have more rows than the tokenizer has pieces (padding): those are never chosen.
  const size_t choices =
      static_cast<size_t>(std::min<int64_t>(tokenizer.vocab_size(), std::ssize(logits)));
  const int32_t id = sampler_.Next(logits.first(choices));
  ScoredToken token{id, "", {}, {}};
  if (request_.top_logprobs >= 0) token = ScoreToken(logits, id, request_.top_logprobs);
  ++generated_;
  const bool ended = weights_.EndsText(id) && !request_.ignore_eos;
  if (!ended) {
    tokens_.push_back(id);
    token.text = decoder_.Push(id);
    progress->text = filter_.Push(token.text);
  }
  progress->tokens.push_back(std::move(token));
  if (ended || filter_.stopped()) {
    progress->finish = FinishReason::kStop;
  } else if (generated_ == request_.max_tokens) {
    progress->finish = FinishReason::kLength;
  }
  if (!progress->finish) return;
  progress->text += filter_.Push(decoder_.Finish());
  if (filter_.stopped()) progress->finish = FinishReason::kStop;
  progress->text += filter_.Finish();
}

}  // namespace tern::serve
