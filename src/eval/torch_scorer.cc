// See torch_scorer.h.
#include "eval/torch_scorer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "nn/precision.h"
#include "quant/torch_parallel.h"
#include "tasks/greedy_text.h"

namespace tern::eval {
namespace {

constexpr int64_t kDefaultMaxLength = 8192;
constexpr int64_t kChunkRows = 256;  // Rows of logits held at once

// Rows [begin, begin + count) of the hidden states times the head: [count, V].
at::Tensor LogitsOf(const model::Decoder& decoder, const at::Tensor& hidden_TD, int64_t begin,
                    int64_t count) {
  return nn::DenseLinear(hidden_TD.narrow(0, begin, count), decoder.HeadWeight(),
                         nn::ComputeType::kFp32)
      .contiguous();
}

std::span<const float> Row(const at::Tensor& logits_NV, int64_t row) {
  const auto v = static_cast<size_t>(logits_NV.size(1));
  return {logits_NV.const_data_ptr<float>() + static_cast<size_t>(row) * v, v};
}

class TorchStream : public tasks::LogitStream {
 public:
  TorchStream(const model::Decoder& decoder, at::Tensor hidden_TD)
      : decoder_(decoder), hidden_TD_(std::move(hidden_TD)) {}

  std::vector<float> Next(int64_t count) override {
    TERN_CHECK(count > 0 && at_ + count <= hidden_TD_.size(0), count, " positions after ", at_,
               " of ", hidden_TD_.size(0));
    const at::NoGradGuard no_grad;
    const at::Tensor logits_NV = LogitsOf(decoder_, hidden_TD_, at_, count);
    at_ += count;
    const float* values = logits_NV.const_data_ptr<float>();
    return {values, values + logits_NV.numel()};
  }

 private:
  const model::Decoder& decoder_;
  at::Tensor hidden_TD_;
  int64_t at_ = 0;
};

}  // namespace

TorchScorer::TorchScorer(const model::Decoder& decoder, const text::Tokenizer* tokenizer,
                         std::vector<int32_t> stop_tokens, std::string source, int64_t max_length)
    : decoder_(decoder),
      tokenizer_(tokenizer),
      stop_tokens_(std::move(stop_tokens)),
      source_(std::move(source)) {
  const int64_t context = decoder.config().context_length;
  if (max_length < 0 || max_length > context)
    throw UsageError(
        StrCat("texts of ", max_length, " tokens; the context of ", source_, " is ", context));
  max_length_ = max_length > 0 ? max_length : std::min(context, kDefaultMaxLength);
}

const ParallelFor& TorchScorer::parallel() const { return quant::TorchParallel(); }

at::Tensor TorchScorer::Hidden(std::span<const int32_t> tokens) {
  const auto count = static_cast<int64_t>(tokens.size());
  TERN_CHECK_INPUT(count <= max_length_, "a text has ", count, " tokens; there is room for ",
                   max_length_);
  model::DecoderInput input;
  input.tokens_BT = at::empty({1, count}, at::kLong);
  int64_t* out = input.tokens_BT.mutable_data_ptr<int64_t>();
  for (const int32_t id : tokens) {
    TERN_CHECK_INPUT(id >= 0 && id < vocab_size(), "token id ", id, " is outside of 0 to ",
                     vocab_size() - 1);
    *out++ = id;
  }
  tokens_run_ += count;
  return decoder_.Hidden(input, {});
}

void TorchScorer::Score(std::span<const tasks::ScoreRequest> requests, const OnScores& done) {
  const at::NoGradGuard no_grad;
  for (size_t r = 0; r < requests.size(); ++r) {
    const tasks::ScoreRequest& request = requests[r];
    const auto size = static_cast<int64_t>(request.tokens.size());
    TERN_CHECK(request.first_scored >= 1 && request.first_scored <= size, "scored from ",
               request.first_scored, " of ", size);
    TERN_CHECK_INPUT(request.tokens.back() >= 0 && request.tokens.back() < vocab_size(),
                     "token id ", request.tokens.back(), " is outside of 0 to ", vocab_size() - 1);
    std::vector<tasks::TokenScore> scores(static_cast<size_t>(size - request.first_scored));
    if (scores.empty()) {
      done(r, {});
      continue;
    }
    const at::Tensor hidden_TD = Hidden(std::span(request.tokens).first(size - 1));
    for (int64_t next = request.first_scored; next < size; next += kChunkRows) {
      const int64_t rows = std::min(kChunkRows, size - next);
      const at::Tensor logits_NV = LogitsOf(decoder_, hidden_TD, next - 1, rows);
      parallel()(rows, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          scores[static_cast<size_t>(next - request.first_scored + i)] =
              tasks::ScoreOf(Row(logits_NV, i).data(), vocab_size(),
                             request.tokens[static_cast<size_t>(next + i)]);
      });
    }
    for (const tasks::TokenScore& score : scores)
      if (!std::isfinite(score.logprob))
        throw NumericError(StrCat(source_, " gives logits that are not finite"));
    done(r, std::move(scores));
  }
}

void TorchScorer::Generate(std::span<const tasks::GenerateRequest> requests, const OnText& done) {
  TERN_CHECK_INPUT(tokenizer_ != nullptr, source_, " has no tokenizer: it cannot write text");
  const at::NoGradGuard no_grad;
  for (size_t r = 0; r < requests.size(); ++r) {
    std::vector<int32_t> tokens = requests[r].tokens;
    TERN_CHECK(!tokens.empty() && requests[r].max_tokens > 0, "nothing to go on from");
    tasks::GreedyText text(requests[r], *tokenizer_, stop_tokens_, max_length_);
    while (true) {
      const at::Tensor hidden_TD = Hidden(tokens);
      const at::Tensor logits_1V = LogitsOf(decoder_, hidden_TD, hidden_TD.size(0) - 1, 1);
      if (!text.Take(Row(logits_1V, 0), source_)) break;
      tokens.push_back(text.last());
    }
    done(r, text.Finish());
  }
}

std::unique_ptr<tasks::LogitStream> TorchScorer::Stream(std::span<const int32_t> tokens) {
  const at::NoGradGuard no_grad;
  return std::make_unique<TorchStream>(decoder_, Hidden(tokens));
}

}  // namespace tern::eval
