// A model in the engine as a ModelScorer. Requests are run as a tree of their shared prefixes
// (prefix_tree.h) on forks in one paged cache; rows of many texts go through the layers together,
// without padding, so requests need not be sorted by length. The engine gives a row the same bits
// in every batch (engine/decoder.h), hence so are all results, for any batch_tokens and thread
// count.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "engine/decoder.h"
#include "engine/engine.h"
#include "tasks/prefix_tree.h"
#include "tasks/scorer.h"

namespace tern::tasks {

struct EngineScorerOptions {
  int64_t batch_tokens = 4096;  // Tokens of one batch, about; more take more memory
  int64_t max_length = 0;       // 0: the model's context, at most 8192
  kernels::KvType cache = kernels::KvType::kF32;
};

class EngineScorer : public ModelScorer {
 public:
  // The engine must outlive this. Throws UsageError for options out of range.
  EngineScorer(const engine::Engine& engine, const EngineScorerOptions& options);
  ~EngineScorer() override;

  int64_t max_length() const override { return decoder_.capacity(); }
  int64_t vocab_size() const override;
  const text::Tokenizer* tokenizer() const override;
  const std::string& source() const override { return engine_.weights().source; }
  void Score(std::span<const ScoreRequest> requests, const OnScores& done) override;
  void Generate(std::span<const GenerateRequest> requests, const OnText& done) override;
  std::unique_ptr<LogitStream> Stream(std::span<const int32_t> tokens) override;
  const ParallelFor& parallel() const override { return engine_.parallel(); }
  int64_t tokens_run() const override { return tokens_run_; }

 private:
  struct Work;    // A node of the tree that is being run
  struct Writer;  // A text that is being generated

  void ScoreBatch(std::span<const ScoreRequest> requests, size_t first, const OnScores& done);
  void RunTree(std::span<const ScoreRequest> requests, const std::vector<PrefixNode>& tree,
               std::vector<std::vector<TokenScore>>* scores);
  void Take(std::span<const ScoreRequest> requests, const PrefixNode& node, int64_t position,
            int64_t count, const std::vector<float>& logits,
            std::vector<std::vector<TokenScore>>* scores);
  std::vector<std::vector<float>> RunDecoder(std::span<const engine::Decoder::Request> requests);
  // A sequence that begins with as much of `tokens` as the last call kept, below `limit` tokens.
  std::unique_ptr<engine::Sequence> Begin(std::span<const int32_t> tokens, int64_t limit);
  void Keep(const engine::Sequence& sequence, std::span<const int32_t> tokens);
  bool Step(Writer* writer, const std::vector<float>& logits, const OnText& done);
  std::unique_ptr<Writer> StartWriter(std::span<const GenerateRequest> requests, size_t index,
                                      int64_t shared);

  const engine::Engine& engine_;
  EngineScorerOptions options_;
  int64_t pages_;
  engine::KvCache cache_;
  engine::Decoder decoder_;
  std::unique_ptr<engine::Sequence> kept_;  // A prefix that the next call may share
  std::vector<int32_t> kept_tokens_;
  int64_t tokens_run_ = 0;
};

}  // namespace tern::tasks
