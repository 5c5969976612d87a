// See bench.h.
#include "train/bench.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/random.h"
#include "plan/plan.h"
#include "train/optimizer.h"
#include "train/step.h"

namespace tern::train {
namespace {

data::Batch RandomBatch(const BenchOptions& options, uint64_t seed) {
  RandomStream stream(seed, "bench");
  data::Batch batch;
  batch.batch = options.batch;
  batch.tokens = options.sequence_length;
  const uint64_t vocabulary = static_cast<uint64_t>(options.model.vocab_size);
  for (int64_t i = 0; i < options.batch * options.sequence_length; ++i) {
    batch.inputs.push_back(static_cast<int32_t>(stream.NextU64() % vocabulary));
    batch.targets.push_back(static_cast<int32_t>(stream.NextU64() % vocabulary));
  }
  return batch;
}

double SumOverRanks(parallel::Group* group, double mine) {
  if (group == nullptr) return mine;
  double sum = 0;
  for (const std::vector<double>& part : group->GatherNumbers({mine})) sum += part[0];
  return sum;
}

}  // namespace

ModelConfig BenchShape(const std::string& name) {
  ModelConfig model;
  model.context_length = 256;
  if (name == "d256") {
    model.vocab_size = 4096;
    model.hidden_size = 256;
    model.intermediate_size = 768;
    model.num_layers = 6;
    model.num_heads = model.num_kv_heads = 4;
  } else if (name == "d512") {
    model.vocab_size = 8192;
    model.hidden_size = 512;
    model.intermediate_size = 1536;
    model.num_layers = 8;
    model.num_heads = model.num_kv_heads = 8;
  } else {
    throw UsageError(StrCat("unknown shape ", name, "; want d256 or d512"));
  }
  return model;
}

BenchResult BenchTrain(const BenchOptions& options) {
  constexpr double kLearningRate = 1e-3, kWeightDecay = 0.1;
  BenchResult result;
  result.gemm_flops = plan::MeasureGemmPeak(options.device);
  result.flops_per_token = plan::FlopsPerToken(options.model, options.sequence_length);
  model::Decoder decoder(options.model, options.device);
  Sharding sharding(options.group, options.parallel, &decoder);
  decoder.Initialize(/*seed=*/1);
  AdamW optimizer(sharding.owned(), recipe::OptimizerConfig());
  StepOptions step;
  step.compute = ComputeTypeOf(options.precision);
  if (options.group != nullptr) {
    step.rank = sharding.data_rank();
    step.ranks = sharding.data_ranks();
    if (options.batch % step.ranks != 0) {
      throw UsageError(StrCat(options.batch, " sequences do not divide among ", step.ranks,
                              " ranks; want 1, 2, 4 or 8"));
    }
  }
  step.micro_batch = options.batch / step.ranks;
  step.sharding = &sharding;
  const data::Batch batch = RandomBatch(options, /*seed=*/1);
  for (int64_t i = 0; i < options.warmup + options.steps; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    if (options.group != nullptr) options.group->ResetTraffic();
    result.last_loss = SumOverRanks(sharding.data_group(), ForwardBackward(decoder, batch, step));
    optimizer.Step(kLearningRate, kWeightDecay,
                   NormOf(sharding.SumSquares(optimizer.GradSquares()), step.loss_scale),
                   step.loss_scale);
    sharding.AfterUpdate();
    sharding.DropGradients();
    if (i == 0) result.first_loss = result.last_loss;
    if (i < options.warmup) continue;
    result.step_seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::vector<double> sorted = result.step_seconds;
  TERN_CHECK(!sorted.empty(), "no steps");
  std::sort(sorted.begin(), sorted.end());
  result.tokens_per_second =
      static_cast<double>(options.batch * options.sequence_length) / sorted[sorted.size() / 2];
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  if (options.group != nullptr) {
    for (const auto& [kind, traffic] : options.group->traffic())
      result.sent_bytes[kind] = traffic.sent_bytes;
  }
  result.peak_rss_bytes = usage.ru_maxrss * 1024;  // Linux counts in KiB.
  return result;
}

}  // namespace tern::train
