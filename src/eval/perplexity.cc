// See perplexity.h.
#include "eval/perplexity.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/stop_signal.h"
#include "data/batch.h"
#include "model/batch_input.h"
#include "nn/loss.h"

namespace tern::eval {
namespace {

constexpr int64_t kChunkRows = 512;  // Rows of logits held at once

// Windows whose targets together stay within max_tokens (at least one window); 0 keeps all.
int64_t WindowsWithin(const std::vector<data::EvalWindow>& windows, int64_t max_tokens) {
  if (max_tokens <= 0) return static_cast<int64_t>(windows.size());
  int64_t tokens = 0, count = 0;
  for (const data::EvalWindow& window : windows) {
    if (count > 0 && tokens + window.targets > max_tokens) break;
    tokens += window.targets;
    ++count;
  }
  return count;
}

}  // namespace

PerplexityResult Perplexity(const model::Decoder& decoder, const data::TokenSource& tokens,
                            const PerplexityOptions& options) {
  const at::NoGradGuard no_grad;
  const std::vector<data::EvalWindow> windows =
      data::EvalWindows(tokens, options.split, options.sequence_length);
  const int64_t count = WindowsWithin(windows, options.max_tokens);
  PerplexityResult result;
  double sum = 0;
  for (int64_t first = 0; first < count; first += options.batch) {
    if (StopRequested()) {
      result.complete = false;
      return result;
    }
    const int64_t size = std::min(options.batch, count - first);
    const data::Batch batch = data::MakeEvalBatch(tokens, options.split, windows, first, size,
                                                  options.sequence_length, options.packing);
    nn::LossOptions loss;
    loss.count = 1;  // The sum, divided once at the end.
    loss.chunk_rows = kChunkRows;
    sum += nn::ChunkedCrossEntropy(decoder.Hidden(model::InputOf(batch, 0, size), {}),
                                   decoder.HeadWeight(), model::TargetsOf(batch, 0, size), loss)
               .item<double>();
    for (int64_t i = first; i < first + size; ++i)
      result.tokens += windows[static_cast<size_t>(i)].targets;
    if (options.progress) options.progress(first + size, count);
  }
  result.loss = sum / static_cast<double>(result.tokens);
  result.perplexity = std::exp(result.loss);
  return result;
}

}  // namespace tern::eval
