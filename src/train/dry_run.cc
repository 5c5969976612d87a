// See dry_run.h.
#include "train/dry_run.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <fstream>
#include <iomanip>
#include <optional>
#include <sstream>

#include "base/error.h"
#include "base/progress.h"
#include "plan/rank_share.h"
#include "plan/step_memory.h"
#include "plan/tensor_split.h"
#include "recipe/check_parallel.h"
#include "train/placement.h"
#include "train/schedule.h"
#include "train/step.h"
#include "train/tensor_memory.h"
#include "train/train_state.h"

namespace tern::train {
namespace {

constexpr int kSteps = 2;                    // The second is counted: moments and buckets are there
constexpr const char* kControl = "control";  // What the ranks agree on: a few numbers

// Bytes that the system can give without writing to disk; 0: unknown.
int64_t FreeMemoryBytes() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  int64_t kib = 0;
  while (file >> name >> kib >> unit) {
    if (name == "MemAvailable:") return kib * 1024;
  }
  return 0;
}

bool RunsBlocksAgain(const recipe::TrainStage& stage) {
  return stage.activation_checkpointing == recipe::ActivationCheckpointing::kBlock;
}

void CheckMemory(const plan::StepShape& shape, const parallel::Group& group) {
  const plan::HeldByRank& held = shape.held;
  auto need = static_cast<double>(held.parameters + held.moments + held.codes);
  for (const plan::MemoryLine& line : plan::StepLines(shape)) need += line.bytes;
  const int64_t free = FreeMemoryBytes();
  if (free == 0 || need <= static_cast<double>(free)) return;
  throw ResourceError(StrCat(shape.stage.id, ": a dry run of rank ", group.rank(), " of ",
                             group.size(), " keeps that rank's tensors, ", FormatBytes(need),
                             "; this machine has ", FormatBytes(static_cast<double>(free)),
                             " free. Spread more (parallel.shard: zero3, more ranks), or take tern "
                             "plan without --dry-run, "
                             "which computes the same numbers"));
}

// As many sequences as make the recipe's number of forward passes, one each.
data::Batch TinyBatch(const ModelConfig& model, int64_t sequences, int64_t tokens) {
  data::Batch batch;
  batch.batch = sequences;
  batch.tokens = tokens;
  for (int64_t i = 0; i < sequences * tokens; ++i) {
    batch.inputs.push_back(static_cast<int32_t>(i % model.vocab_size));
    batch.targets.push_back(static_cast<int32_t>((i + 1) % model.vocab_size));
  }
  return batch;
}

StepOptions OptionsOf(const recipe::TrainStage& stage, TrainState* state) {
  StepOptions options;
  options.compute = ComputeTypeOf(stage.precision);
  options.checkpoint_blocks = RunsBlocksAgain(stage);
  options.micro_batch = 1;
  options.loss_chunk_tokens = stage.loss_chunk_tokens;
  options.rank = state->sharding.data_rank();
  options.ranks = state->sharding.data_ranks();
  options.sharding = &state->sharding;
  return options;
}

int64_t Bytes(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<int64_t>(tensor.nbytes()) : 0;
}

// One step as Trainer's, without its faults, logs and checkpoints.
void Step(const recipe::TrainStage& stage, const data::Batch& batch, parallel::Group& group,
          TrainState* state, DryRunResult* result) {
  const StepOptions options = OptionsOf(stage, state);
  double loss = 0;
  group.Guard([&] { loss = ForwardBackward(state->decoder, batch, options); });
  group.GatherNumbers({loss, 0, 0, 0, 1});
  result->gradients = 0;
  for (const model::Parameter& parameter : state->sharding.owned())
    result->gradients += Bytes(parameter.value.grad());
  const double norm =
      NormOf(state->sharding.SumSquares(state->optimizer.GradSquares()), options.loss_scale);
  state->optimizer.Step(LearningRate(stage.schedule, state->step, stage.steps),
                        WeightDecay(stage.optimizer, state->step, stage.steps), norm,
                        options.loss_scale);
  result->codes = 0;
  for (size_t i = 0; i < state->decoder.parameters().size(); ++i) {
    const model::Parameter& parameter = state->decoder.parameters()[i];
    nn::WeightSource* source = state->sharding.source();
    if (source == nullptr || parameter.spec.role != ParameterRole::kLinear) continue;
    result->codes += Bytes(source->Ternary(parameter.value).t2_NC);
  }
  state->sharding.AfterUpdate();
  state->optimizer.ZeroGrad();
  state->sharding.DropGradients();
  ++state->step;
}

}  // namespace

DryRunResult DryRun(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
                    parallel::Group& group, int64_t tokens) {
  std::string why = WhyNotByRanks(recipe, stage);
  const std::string what = recipe::TrainedByWholeModels(stage);
  if (why.empty() && !what.empty())
    why = StrCat(stage.id, ": a dry run knows plain training only; found ", what);
  if (!why.empty()) throw RecipeError(why);
  const int64_t sequences = stage.tokens_per_step / stage.sequence_length;
  const int64_t data_ranks = plan::DataRanks(recipe.parallel, group.size());
  const int64_t passes = sequences / plan::MicroBatch(stage, data_ranks),  // Of all ranks
      mine = passes / data_ranks;
  DryRunResult result;
  result.tokens = std::min(tokens, stage.sequence_length);
  result.planned = plan::HeldBy(recipe.model, recipe.parallel, group.layout(), group.rank());
  result.sent = plan::SentBy(recipe.model, recipe.parallel, group.layout(), group.rank(),
                             {result.tokens, mine, RunsBlocksAgain(stage)});
  CheckMemory({recipe, stage, result.tokens, mine, data_ranks, result.planned}, group);
  TensorMemory::Count();
  const int64_t before = TensorMemory::Bytes();
  TrainState state(recipe, stage, &group);
  state.decoder.Initialize(static_cast<uint64_t>(recipe.seed));
  state.sharding.ValuesLoaded();
  TensorMemory::RestartPeak();  // Making it reserves the whole model, untouched, for a moment
  const data::Batch batch = TinyBatch(recipe.model, passes, result.tokens);
  for (int i = 0; i < kSteps; ++i) {
    group.ResetTraffic();
    Step(stage, batch, group, &state, &result);
  }
  result.traffic = group.traffic();
  for (const model::Parameter& parameter : state.decoder.parameters())
    result.parameters += Bytes(parameter.value);
  for (const auto* moments : {&state.optimizer.exp_avg(), &state.optimizer.exp_avg_sq()}) {
    for (const at::Tensor& moment : *moments) result.moments += Bytes(moment);
  }
  result.resting = TensorMemory::Bytes() - before;
  result.peak = TensorMemory::PeakBytes() - before;
  return result;
}

namespace {

std::string Row(const std::string& what, const std::vector<std::string>& columns) {
  std::ostringstream out;
  out << "    " << std::left << std::setw(34) << what << std::right;
  for (const std::string& column : columns) out << std::setw(14) << column;
  out << "\n";
  return out.str();
}

std::string TrafficRows(const plan::TrainPlan& plan, const DryRunResult& result) {
  const bool machines = plan.per_machine < plan.ranks;
  std::vector<std::string> titles = {"calls", "bytes sent", "planned"};
  if (machines) titles.insert(titles.end(), {"in machine", "between"});
  std::string text = Row("a step's collectives", titles);
  for (const auto& [kind, traffic] : result.traffic) {
    const auto planned = result.sent.find(kind);
    std::vector<std::string> columns = {
        StrCat(traffic.calls), FormatBytes(traffic.sent_bytes),
        planned == result.sent.end() ? "-" : FormatBytes(planned->second.sent_bytes)};
    if (machines) {
      columns.push_back(FormatBytes(traffic.near_bytes));
      columns.push_back(FormatBytes(traffic.far_bytes));
    }
    text += Row(StrCat(kind, " (", parallel::CollectiveName(traffic.collective), ")"), columns);
  }
  return text;
}

// Kinds of which the running code did something else than the plan says.
std::string Differences(const DryRunResult& result) {
  std::string names;
  const auto compare = [&](const parallel::TrafficByKind& a, const parallel::TrafficByKind& b) {
    for (const auto& [kind, traffic] : a) {
      const auto other = b.find(kind);
      const bool same = other != b.end() && other->second.calls == traffic.calls &&
                        other->second.payload_bytes == traffic.payload_bytes;
      if (kind == kControl || same || names.find(kind) != std::string::npos) continue;
      names += (names.empty() ? "" : ", ") + kind;
    }
  };
  compare(result.traffic, result.sent);
  compare(result.sent, result.traffic);
  return names;
}

}  // namespace

std::string FormatDryRun(const plan::TrainPlan& plan, const DryRunResult& result) {
  std::string text = StrCat("  dry run      rank ", plan.rank, " of ", plan.ranks, ", ", kSteps,
                            " steps of the training code without the others, sequences of ",
                            result.tokens, " tokens:\n", TrafficRows(plan, result));
  const std::string differences = Differences(result);
  text += differences.empty()
              ? "    the running code sent what the plan says, to the byte\n"
              : StrCat("    the running code differs from the plan in: ", differences, "\n");
  text += Row("this rank's tensors", {"", "bytes", "planned"});
  const auto row = [&](const char* what, int64_t bytes, std::optional<int64_t> planned = {}) {
    text += Row(what, {"", FormatBytes(static_cast<double>(bytes)),
                       planned ? FormatBytes(static_cast<double>(*planned)) : "-"});
  };
  row("parameters (fp32)", result.parameters, result.planned.parameters);
  row("gradients after backward (fp32)", result.gradients, result.planned.gradients);
  row("AdamW moments (fp32)", result.moments, result.planned.moments);
  if (result.codes > 0) row("2-bit codes", result.codes, result.planned.codes);
  row("all tensors, between steps", result.resting);
  row("the most within a step so tiny", result.peak);
  return text;
}

}  // namespace tern::train
