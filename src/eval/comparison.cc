// See comparison.h.
#include "eval/comparison.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/nonzero.h>

#include <algorithm>

#include "base/error.h"
#include "base/stop_signal.h"
#include "data/batch.h"
#include "model/batch_input.h"

namespace tern::eval {
namespace {

constexpr int64_t kChunkRows = 512;  // Rows of logits held at once, of both models

// Adds the rows of one forward pass that predict something.
void AddRows(const model::Decoder& decoder, const model::Decoder& reference,
             const model::DecoderInput& input, const at::Tensor& targets_M, Comparison* sums) {
  const at::Tensor rows = at::nonzero(targets_M.ge(0)).view({-1});
  const at::Tensor h_MD = decoder.Hidden(input, {}).index_select(0, rows),
                   r_MD = reference.Hidden(input, {}).index_select(0, rows),
                   targets = targets_M.to(at::kLong).index_select(0, rows);
  for (int64_t begin = 0; begin < rows.size(0); begin += kChunkRows) {
    const int64_t count = std::min(kChunkRows, rows.size(0) - begin);
    const auto log_probs = [&](const at::Tensor& hidden, const model::Decoder& model) {
      return at::log_softmax(at::linear(hidden.narrow(0, begin, count), model.HeadWeight()), -1);
    };
    const at::Tensor ours = log_probs(h_MD, decoder), theirs = log_probs(r_MD, reference),
                     labels = targets.narrow(0, begin, count).unsqueeze(-1);
    sums->loss -= at::gather(ours, 1, labels).sum(at::kDouble).item<double>();
    sums->reference_loss -= at::gather(theirs, 1, labels).sum(at::kDouble).item<double>();
    sums->mean_kl += (theirs.exp() * (theirs - ours)).sum(at::kDouble).item<double>();
  }
  sums->tokens += rows.size(0);
}

}  // namespace

Comparison Compare(const model::Decoder& decoder, const model::Decoder& reference,
                   const data::TokenSource& tokens, const PerplexityOptions& options) {
  const at::NoGradGuard no_grad;
  const int64_t ours = decoder.config().vocab_size, theirs = reference.config().vocab_size;
  TERN_CHECK_INPUT(ours == theirs, "the models have vocabularies of ", ours, " and ", theirs,
                   " tokens; want equal ones");
  const std::vector<data::EvalWindow> windows = WindowsToRead(tokens, options);
  const auto count = static_cast<int64_t>(windows.size());
  Comparison sums;
  for (int64_t first = 0; first < count; first += options.batch) {
    if (StopRequested()) {
      sums.complete = false;
      return sums;
    }
    const int64_t size = std::min(options.batch, count - first);
    const data::Batch batch = data::MakeEvalBatch(tokens, options.split, windows, first, size,
                                                  options.sequence_length, options.packing);
    AddRows(decoder, reference, model::InputOf(batch, 0, size, decoder.device()),
            model::TargetsOf(batch, 0, size, decoder.device()), &sums);
    if (options.progress) options.progress(first + size, count);
  }
  CheckPredicted(sums.tokens, options.split);
  const auto predicted = static_cast<double>(sums.tokens);
  sums.loss /= predicted;
  sums.reference_loss /= predicted;
  sums.mean_kl /= predicted;
  return sums;
}

std::vector<double> BlockErrors(const model::Decoder& decoder, const model::Decoder& reference,
                                const data::TokenSource& tokens, const PerplexityOptions& options) {
  const at::NoGradGuard no_grad;
  const ModelConfig &ours = decoder.config(), &theirs = reference.config();
  if (ours.num_layers != theirs.num_layers || ours.hidden_size != theirs.hidden_size) return {};
  const std::vector<data::EvalWindow> windows = WindowsToRead(tokens, options);
  const auto blocks = static_cast<size_t>(ours.num_layers);
  std::vector<double> errors(blocks), powers(blocks);
  // One window at a time: all blocks' inner tensors are held.
  for (int64_t i = 0; i < static_cast<int64_t>(windows.size()); ++i) {
    const data::Batch batch = data::MakeEvalBatch(tokens, options.split, windows, i, 1,
                                                  options.sequence_length, options.packing);
    const model::DecoderInput input = model::InputOf(batch, 0, 1, decoder.device());
    const int64_t rows = windows[static_cast<size_t>(i)].targets;
    const auto features = [&](const model::Decoder& model) {
      model::Capture capture;
      for (int64_t layer = 0; layer < ours.num_layers; ++layer) capture.layers.insert(layer);
      model::ForwardOptions forward;
      forward.capture = &capture;
      model.Hidden(input, forward);
      return std::move(capture.features);
    };
    const auto found = features(decoder), wanted = features(reference);
    for (size_t b = 0; b < blocks; ++b) {
      const auto layer = static_cast<int64_t>(b);
      const at::Tensor h = found.at(layer).hidden_MD.narrow(0, 0, rows),
                       r = wanted.at(layer).hidden_MD.narrow(0, 0, rows);
      errors[b] += (h - r).square().sum(at::kDouble).item<double>();
      powers[b] += r.square().sum(at::kDouble).item<double>();
    }
  }
  for (size_t b = 0; b < blocks; ++b) errors[b] /= powers[b];
  return errors;
}

}  // namespace tern::eval
