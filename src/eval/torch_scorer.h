// A decoder of libtorch as a ModelScorer: what `tern eval` measures a checkpoint with, in fp32, and
// the reference for the engine's numbers. Requests run one after the other, each at its own length,
// so that no result depends on what else is asked; nothing is kept between tokens, so generating T
// tokens costs T passes. The engine is many times faster at both; this one is what was trained.
#pragma once

#include <cstdint>
#include <string>

#include "model/decoder.h"
#include "tasks/scorer.h"
#include "text/tokenizer.h"

namespace tern::eval {

class TorchScorer : public tasks::ModelScorer {
 public:
  // Both must outlive this; no tokenizer: null. `stop_tokens`: end texts as EOS does. `max_length`:
  // 0 is the model's context, at most 8192. Throws UsageError for more than the model's context.
  TorchScorer(const model::Decoder& decoder, const text::Tokenizer* tokenizer,
              std::vector<int32_t> stop_tokens, std::string source, int64_t max_length);

  int64_t max_length() const override { return max_length_; }
  int64_t vocab_size() const override { return decoder_.config().vocab_size; }
  const text::Tokenizer* tokenizer() const override { return tokenizer_; }
  const std::string& source() const override { return source_; }
  void Score(std::span<const tasks::ScoreRequest> requests, const OnScores& done) override;
  void Generate(std::span<const tasks::GenerateRequest> requests, const OnText& done) override;
  std::unique_ptr<tasks::LogitStream> Stream(std::span<const int32_t> tokens) override;
  const ParallelFor& parallel() const override;
  int64_t tokens_run() const override { return tokens_run_; }

 private:
  // Output of the last norm for each token, [T, D].
  at::Tensor Hidden(std::span<const int32_t> tokens);

  const model::Decoder& decoder_;
  const text::Tokenizer* tokenizer_;
  std::vector<int32_t> stop_tokens_;
  std::string source_;
  int64_t max_length_;
  int64_t tokens_run_ = 0;
};

}  // namespace tern::eval
