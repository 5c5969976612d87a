// See perplexity.h.
#include "eval/perplexity.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "data/batch.h"
#include "model/batch_input.h"
#include "nn/loss.h"

namespace tern::eval {
namespace {

constexpr int64_t kChunkRows = 512;  // Rows of logits held at once

// What one rank has done of an evaluation.
struct Shares {
  std::vector<double> losses;  // Sum of negative log-likelihoods of each of its passes, in order
  int64_t targets = 0;         // Predicted in them: not borders of documents, prompts, padding
  bool complete = true;        // False: a stop signal ended it early
};

// Passes first, first + ranks, ... of this rank.
Shares MyPasses(const model::Decoder& decoder, const data::TokenSource& tokens,
                const PerplexityOptions& options, const std::vector<data::EvalWindow>& windows) {
  const auto count = static_cast<int64_t>(windows.size());
  const int64_t ranks = options.group == nullptr ? 1 : options.group->size(),
                rank = options.group == nullptr ? 0 : options.group->rank();
  model::ForwardOptions forward;
  forward.source = options.source;
  forward.tensor = options.tensor;
  Shares shares;
  for (int64_t first = rank * options.batch; first < count; first += ranks * options.batch) {
    if (options.stop_requested()) {
      shares.complete = false;
      return shares;
    }
    const int64_t size = std::min(options.batch, count - first);
    const data::Batch batch = data::MakeEvalBatch(tokens, options.split, windows, first, size,
                                                  options.sequence_length, options.packing);
    shares.targets += std::count_if(batch.targets.begin(), batch.targets.end(),
                                    [](int32_t target) { return target >= 0; });
    nn::LossOptions loss;
    loss.count = 1;  // The sum, divided once at the end.
    loss.chunk_rows = kChunkRows;
    const at::Tensor h_MD =
        decoder.Hidden(model::InputOf(batch, 0, size, decoder.device()), forward);
    shares.losses.push_back(
        nn::ChunkedCrossEntropy(h_MD, decoder.HeadWeight(),
                                model::TargetsOf(batch, 0, size, decoder.device()), loss)
            .item<double>());
    if (options.progress) options.progress(first + size, count);
  }
  return shares;
}

// All ranks' shares as one: the passes' losses in their order, on every rank alike.
Shares JoinPasses(const Shares& mine, int64_t passes, parallel::Group& group) {
  const int64_t ranks = group.size(), most = (passes + ranks - 1) / ranks;
  std::vector<double> sent = {mine.complete ? 1.0 : 0.0, static_cast<double>(mine.targets)};
  const auto head = static_cast<int64_t>(sent.size());
  sent.insert(sent.end(), mine.losses.begin(), mine.losses.end());
  sent.resize(static_cast<size_t>(head + most));
  const auto all = group.GatherNumbers(sent);
  Shares joined;
  for (const auto& numbers : all) {
    joined.complete = joined.complete && numbers[0] != 0;
    joined.targets += static_cast<int64_t>(numbers[1]);
  }
  for (int64_t pass = 0; pass < passes; ++pass) {
    joined.losses.push_back(
        all[static_cast<size_t>(pass % ranks)][static_cast<size_t>(head + pass / ranks)]);
  }
  return joined;
}

}  // namespace

void CheckPredicted(int64_t targets, data::Split split) {
  TERN_CHECK_INPUT(targets > 0, "no token of the ", data::SplitName(split),
                   " text that is read has a label; the masks of the data hide everything. Give "
                   "answers that count (prompts_count, a longer sequence_length) or read more");
}

std::vector<data::EvalWindow> WindowsToRead(const data::TokenSource& tokens,
                                            const PerplexityOptions& options) {
  std::vector<data::EvalWindow> windows =
      data::EvalWindows(tokens, options.split, options.sequence_length);
  if (options.max_tokens <= 0) return windows;
  int64_t targets = 0;
  size_t count = 0;
  for (; count < windows.size(); ++count) {
    targets += windows[count].targets;
    if (count > 0 && targets > options.max_tokens) break;
  }
  windows.resize(count);
  return windows;
}

PerplexityResult Perplexity(const model::Decoder& decoder, const data::TokenSource& tokens,
                            const PerplexityOptions& options) {
  const at::NoGradGuard no_grad;
  const std::vector<data::EvalWindow> windows = WindowsToRead(tokens, options);
  Shares shares = MyPasses(decoder, tokens, options, windows);
  if (options.group != nullptr) {
    const auto count = static_cast<int64_t>(windows.size());
    shares = JoinPasses(shares, (count + options.batch - 1) / options.batch, *options.group);
  }
  PerplexityResult result;
  result.complete = shares.complete;
  if (!result.complete) return result;
  CheckPredicted(shares.targets, options.split);
  result.tokens = shares.targets;
  for (const double loss : shares.losses) result.loss += loss;
  result.loss /= static_cast<double>(result.tokens);
  result.perplexity = std::exp(result.loss);
  return result;
}

}  // namespace tern::eval
