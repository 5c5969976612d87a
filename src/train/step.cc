// See step.h.
#include "train/step.h"

#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "base/error.h"
#include "model/batch_input.h"
#include "nn/loss.h"

namespace tern::train {
nn::ComputeType ComputeTypeOf(recipe::Precision precision) {
  switch (precision) {
    case recipe::Precision::kFp32:
      return nn::ComputeType::kFp32;
    case recipe::Precision::kBf16:
      return nn::ComputeType::kBf16;
    case recipe::Precision::kFp16:
      return nn::ComputeType::kFp16;
  }
  __builtin_unreachable();
}

data::Packing PackingOf(recipe::Packing packing) {
  return packing == recipe::Packing::kStream ? data::Packing::kStream : data::Packing::kDocuments;
}

double ForwardBackward(const model::Decoder& decoder, const data::Batch& batch,
                       const StepOptions& options) {
  TERN_CHECK(batch.batch % (options.ranks * options.micro_batch) == 0, batch.batch,
             " sequences on ", options.ranks, " ranks in micro-batches of ", options.micro_batch);
  const int64_t share = batch.batch / options.ranks, first = options.rank * share;
  nn::LossOptions loss_options;
  loss_options.compute = options.compute;
  loss_options.chunk_rows = options.loss_chunk_tokens;
  loss_options.grad_scale = options.loss_scale;
  loss_options.count = static_cast<double>(std::count_if(
      batch.targets.begin(), batch.targets.end(), [](int32_t target) { return target >= 0; }));
  TERN_CHECK_INPUT(
      loss_options.count > 0,
      "no token of a step has a label: the masks of the data hide all of it; want longer "
      "samples (sequence_length), more a step (tokens_per_step), or prompts_count: true");
  const model::ForwardOptions forward{options.compute,
                                      options.checkpoint_blocks,
                                      options.observer,
                                      nullptr,
                                      options.quantized_share,
                                      options.sharding ? options.sharding->source() : nullptr,
                                      options.sharding ? options.sharding->tensor() : nullptr};
  if (options.sharding) options.sharding->PrepareForward();
  const at::Device device = decoder.device();
  double loss_sum = 0;
  for (int64_t begin = first; begin < first + share; begin += options.micro_batch) {
    const at::Tensor h_MD =
        decoder.Hidden(model::InputOf(batch, begin, options.micro_batch, device), forward);
    const at::Tensor loss = nn::ChunkedCrossEntropy(
        h_MD, decoder.HeadWeight(), model::TargetsOf(batch, begin, options.micro_batch, device),
        loss_options);
    const bool last = begin + options.micro_batch == first + share;
    if (options.sharding) options.sharding->BeforeBackward(last);
    torch::autograd::backward({loss}, {});
    loss_sum += loss.item<double>();
  }
  if (options.sharding && options.finishes_gradients) options.sharding->FinishGradients();
  return loss_sum;
}

}  // namespace tern::train
