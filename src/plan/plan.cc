// See plan.h.
#include "plan/plan.h"

#include <ATen/Parallel.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iomanip>
#include <sstream>

#include "base/error.h"
#include "base/progress.h"
#include "plan/rank_share.h"
#include "plan/step_memory.h"
#include "plan/teacher_memory.h"
#include "plan/tensor_split.h"
#include "recipe/frozen.h"

namespace tern::plan {
namespace {

constexpr double kFloat = 4;  // Bytes of fp32
constexpr int64_t kMaxAutoSequences =
    8;  // More in one forward gains no speed on a CPU and costs memory
// Share of the GEMM peak a training step reaches; measured 0.6 to 1.1 (integer forwards count as
// fp32 work here).
constexpr double kExpectedPeakShare = 0.7;
// libtorch, its threads and what the allocator keeps: the quickstart takes 505 MiB in all.
constexpr double kProcessBytes = 360e6;
constexpr const char* kProcessLine = "process and libtorch";
constexpr const char* kMomentsLine = "AdamW moments (fp32)";

// A pass that writes one token a sequence reads every weight once: bytes a second of fp32 matrices
// out of memory. Assumed, not measured here; a machine that reads faster takes less.
constexpr double kReadBytesPerSecond = 6e9;

double MatrixWeights(const ModelConfig& model) {
  double weights = 0;
  for (const ParameterSpec& spec : ParameterTable(model)) {
    const bool used_in_product = spec.role == ParameterRole::kLinear ||
                                 spec.role == ParameterRole::kHead ||
                                 (spec.role == ParameterRole::kEmbedding && model.tied_head);
    if (used_in_product) weights += static_cast<double>(spec.Count());
  }
  return weights;
}

// Weights of adapters of every linear layer: A [rank, K] and B [N, rank].
double AdapterCount(const ModelConfig& model, int64_t rank) {
  double count = 0;
  for (const ParameterSpec& spec : ParameterTable(model)) {
    if (spec.role == ParameterRole::kLinear)
      count += static_cast<double>(rank * (spec.shape[0] + spec.shape[1]));
  }
  return count;
}

// Tokens that a sequence of a generated step gets at most.
int64_t WrittenTokens(const recipe::TrainStage& stage) {
  const recipe::GeneratedConfig& g = stage.losses.generated;
  const int64_t room = stage.sequence_length + 1 - std::max<int64_t>(g.prompt_tokens, 1);
  return g.tokens > 0 ? std::min(g.tokens, room) : room;
}

// What losses keep beside the model.
std::vector<MemoryLine> LossLines(const ModelConfig& model, const recipe::TrainStage& stage,
                                  double rows, int64_t data_ranks) {
  const recipe::LossesConfig& l = stage.losses;
  std::vector<MemoryLine> lines;
  if (l.log_gradients_every > 0 || l.balance.by != recipe::BalanceBy::kNone) {
    lines.push_back(
        {"gradients of single losses", kFloat * rows * static_cast<double>(model.hidden_size) *
                                           static_cast<double>(recipe::UsedLosses(l).size() + 1)});
  }
  if (l.generated.by != recipe::GeneratedBy::kNone) {
    lines.push_back({"keys and values of what is written",
                     2 * kFloat * static_cast<double>(stage.tokens_per_step / data_ranks) *
                         static_cast<double>(model.num_layers * model.num_kv_heads) *
                         static_cast<double>(model.HeadDim())});
  }
  return lines;
}

std::vector<MemoryLine> MemoryLines(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
                                    const TrainPlan& plan) {
  HeldByRank held =
      HeldBy(recipe.model, recipe.parallel, {plan.ranks, plan.per_machine}, plan.rank);
  if (stage.lora.rank > 0) {  // The model is frozen; at most every linear layer has an adapter
    const auto adapters =
        static_cast<int64_t>(kFloat * AdapterCount(recipe.model, stage.lora.rank));
    held.parameters += adapters;
    held.gradients = adapters;
    held.moments = 2 * adapters;
  } else {
    const auto frozen = static_cast<int64_t>(kFloat) * recipe::FrozenWeights(stage, recipe.model);
    held.gradients -= frozen;
    held.moments -= 2 * frozen;
  }
  std::vector<MemoryLine> lines = {{"parameters (fp32)", static_cast<double>(held.parameters)},
                                   {kMomentsLine, static_cast<double>(held.moments)}};
  if (held.codes > 0) lines.push_back({"2-bit codes", static_cast<double>(held.codes)});
  if (stage.checkpoint_async) {
    lines.push_back({"copy for the checkpoint", 3 * kFloat * static_cast<double>(plan.parameters) /
                                                    static_cast<double>(plan.ranks)});
  }
  const int64_t data_ranks = DataRanks(recipe.parallel, plan.ranks);
  const int64_t rows = MicroBatch(stage, data_ranks) * stage.sequence_length;
  for (MemoryLine& line : LossLines(recipe.model, stage, static_cast<double>(rows), data_ranks))
    lines.push_back(std::move(line));
  for (MemoryLine& line : TeacherLines(recipe, stage, rows)) lines.push_back(std::move(line));
  for (const MemoryLine& line :
       StepLines({recipe, stage, rows, plan.micro_batches, data_ranks, held})) {
    if (line.bytes > 0) lines.push_back(line);
  }
  lines.push_back({kProcessLine, kProcessBytes, /*is_tensors=*/false});
  return lines;
}

const char* ShardName(recipe::Sharding shard) {
  switch (shard) {
    case recipe::Sharding::kNone:
      return "none (all on every rank, gradients summed)";
    case recipe::Sharding::kZero1:
      return "zero1 (optimizer state spread)";
    case recipe::Sharding::kZero2:
      return "zero2 (optimizer state and gradients spread)";
    case recipe::Sharding::kZero3:
      return "zero3 (optimizer state, gradients and BitLinear latents spread)";
  }
  __builtin_unreachable();
}

std::string Percent(double share) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(0) << 100 * share << " %";
  return out.str();
}

int64_t LargestDivisor(int64_t of, int64_t at_most) {
  int64_t divisor = std::min(of, at_most);
  while (of % divisor != 0) --divisor;
  return divisor;
}

}  // namespace

double FlopsPerToken(const ModelConfig& model, int64_t sequence_length) {
  const double attention = 2.0 * 2.0 * 0.5 *
                           static_cast<double>(sequence_length * model.num_layers) *
                           static_cast<double>(model.num_heads * model.HeadDim());
  return 3.0 * (2.0 * MatrixWeights(model) + attention);
}

int64_t MicroBatch(const recipe::TrainStage& stage, int64_t ranks) {
  const int64_t all = stage.tokens_per_step / stage.sequence_length, sequences = all / ranks;
  if (all % ranks != 0) {
    throw RecipeError(StrCat(stage.id, ".tokens_per_step = ", stage.tokens_per_step, " is ", all,
                             " sequences of ", stage.sequence_length,
                             ", which do not divide among ", ranks, " ranks; try ",
                             std::max<int64_t>(all / ranks, 1) * ranks * stage.sequence_length,
                             ", or another number of ranks"));
  }
  if (stage.micro_batch > 0) {
    if (sequences % stage.micro_batch != 0) {
      throw RecipeError(StrCat(stage.id, ".micro_batch = ", stage.micro_batch,
                               " does not divide a rank's share of ", sequences, " sequences (",
                               all, " on ", ranks, " ranks); try ", stage.id,
                               ".micro_batch=", LargestDivisor(sequences, stage.micro_batch)));
    }
    return stage.micro_batch;
  }
  return LargestDivisor(sequences, kMaxAutoSequences);  // Whole micro-batches only.
}

TrainPlan PlanTraining(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
                       double gemm_flops, const PlannedRank& place) {
  const ModelConfig& model = recipe.model;
  const int64_t ranks = place.ranks;
  TrainPlan plan;
  plan.ranks = ranks;
  plan.per_machine = place.per_machine > 0 ? std::min(place.per_machine, ranks) : ranks;
  const parallel::RankLayout layout = {ranks, plan.per_machine};
  plan.rank = place.rank >= 0 ? place.rank : FullestRank(model, recipe.parallel, layout);
  for (const ParameterSpec& spec : ParameterTable(model)) {
    plan.parameters += spec.Count();
    const bool ternary =
        spec.role == ParameterRole::kLinear && model.linear == LinearKind::kBitLinear;
    if (ternary) plan.ternary_parameters += spec.Count();
  }
  plan.tokens = stage.steps * stage.tokens_per_step;
  const int64_t data_ranks = DataRanks(recipe.parallel, ranks);
  const int64_t rows = MicroBatch(stage, data_ranks) * stage.sequence_length;
  plan.micro_batches = stage.tokens_per_step / (data_ranks * rows);
  plan.sent = SentBy(model, recipe.parallel, layout, plan.rank,
                     {rows, plan.micro_batches,
                      stage.activation_checkpointing == recipe::ActivationCheckpointing::kBlock});
  plan.flops = FlopsPerToken(model, stage.sequence_length) * static_cast<double>(plan.tokens);
  const recipe::GeneratedConfig& generated = stage.losses.generated;
  if (generated.by != recipe::GeneratedBy::kNone) {
    plan.written_steps = generated.share * static_cast<double>(stage.steps);
    plan.written_tokens = WrittenTokens(stage);
    const double share = plan.written_steps / static_cast<double>(stage.steps);
    plan.flops *= 1 + share / 3;  // A forward pass more, by a writer of the student's size
  }
  plan.memory = MemoryLines(recipe, stage, plan);
  for (const MemoryLine& line : plan.memory) {
    plan.memory_bytes += line.bytes;
    if (stage.optimizer.offload && line.what == kMomentsLine) plan.host_bytes = line.bytes;
    if (line.is_tensors) plan.tensor_bytes += line.bytes;
  }
  plan.checkpoint_bytes =
      stage.lora.rank > 0 ? kFloat * (static_cast<double>(plan.parameters) +
                                      3 * AdapterCount(model, stage.lora.rank))
                          : kFloat * (3 * static_cast<double>(plan.parameters) -
                                      2 * static_cast<double>(recipe::FrozenWeights(stage, model)));
  plan.gemm_flops = gemm_flops * static_cast<double>(ranks);
  if (gemm_flops > 0) {
    const double read_bytes = plan.written_steps * static_cast<double>(plan.written_tokens) *
                              kFloat * MatrixWeights(model);
    plan.seconds =
        plan.flops / (plan.gemm_flops * kExpectedPeakShare) + read_bytes / kReadBytesPerSecond;
  }
  return plan;
}

double MeasureGemmPeak(const at::Device& device) {
  constexpr int64_t kSize = 1024;
  constexpr int kRuns = 12;
  const at::Tensor a = at::ones({kSize, kSize}, device), b = at::ones({kSize, kSize}, device);
  double best_s = 1e30;
  for (int run = 0; run < kRuns; ++run) {
    const auto begin = std::chrono::steady_clock::now();
    const at::Tensor c = at::mm(a, b);
    if (!device.is_cpu()) c.select(0, 0).select(0, 0).item<float>();  // Waits for it
    best_s = std::min(
        best_s, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return 2.0 * kSize * kSize * kSize / best_s;
}

std::string FormatPlan(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
                       const TrainPlan& plan) {
  const ModelConfig& m = recipe.model;
  std::ostringstream out;
  out << "plan of " << recipe.name << ", stage " << stage.id << "\n"
      << "  model        " << FormatSi(static_cast<double>(plan.parameters)) << " parameters ("
      << Percent(static_cast<double>(plan.ternary_parameters) /
                 static_cast<double>(plan.parameters))
      << " ternary), width " << m.hidden_size << ", " << m.num_layers << " layers, FFN "
      << m.intermediate_size << ", vocabulary " << m.vocab_size << "\n"
      << "  data         " << FormatSi(static_cast<double>(plan.tokens))
      << " tokens = " << stage.steps << " steps of " << stage.tokens_per_step << " ("
      << plan.micro_batches << " forward passes of "
      << MicroBatch(stage, DataRanks(recipe.parallel, plan.ranks)) << " x " << stage.sequence_length
      << (plan.ranks > 1 ? " on each rank" : "") << ")\n"
      << "  work         " << FormatSi(plan.flops) << "FLOP";
  if (plan.seconds > 0) {
    out << ", about " << FormatDuration(plan.seconds) << " on " << at::get_num_threads()
        << " threads" << (plan.ranks > 1 ? " a rank" : "") << " (" << FormatSi(plan.gemm_flops)
        << "FLOP/s measured GEMM peak)";
  }
  out << "\n";
  if (plan.written_steps > 0) {
    const bool by_student = stage.losses.generated.by == recipe::GeneratedBy::kStudent;
    out << "  generated    " << Percent(stage.losses.generated.share) << " of the steps, by the "
        << (by_student ? "student" : "teacher") << ": up to " << plan.written_tokens
        << " passes of "
        << stage.tokens_per_step / stage.sequence_length / DataRanks(recipe.parallel, plan.ranks)
        << " sequences, a token each\n";
  }
  if (plan.ranks > 1) {
    out << "  ranks        " << plan.ranks
        << ", parallel.shard: " << ShardName(recipe.parallel.shard);
    if (recipe.parallel.tensor > 1)
      out << ", products shared by " << recipe.parallel.tensor << " (parallel.tensor)";
    out << "\n";
  }
  out << "  memory       " << FormatBytes(plan.memory_bytes) << " at most"
      << (plan.ranks > 1 ? StrCat(", on rank ", plan.rank) : "") << ":\n";
  for (const MemoryLine& line : plan.memory) {
    out << "    " << std::left << std::setw(34) << line.what << std::right << std::setw(12)
        << FormatBytes(line.bytes) << "\n";
  }
  if (!plan.sent.empty()) out << "  sent         by rank " << plan.rank << " in a step:\n";
  for (const auto& [kind, traffic] : plan.sent) {
    out << "    " << std::left << std::setw(34)
        << StrCat(kind, " (", parallel::CollectiveName(traffic.collective), ", ", traffic.calls,
                  traffic.calls == 1 ? " call)" : " calls)")
        << std::right << std::setw(12) << FormatBytes(traffic.sent_bytes) << "\n";
  }
  out << "  checkpoint   " << FormatBytes(plan.checkpoint_bytes) << " each\n";
  return out.str();
}

void CheckBudget(const recipe::Recipe& recipe, const TrainPlan& plan, const RankMemory& memory) {
  const bool on_gpu = memory.gpu_bytes > 0, shared = !on_gpu && memory.sharing > 1;
  const double machine = static_cast<double>(sysconf(_SC_PHYS_PAGES)) *
                         static_cast<double>(sysconf(_SC_PAGE_SIZE)) /
                         static_cast<double>(memory.sharing);
  const double room = on_gpu ? static_cast<double>(memory.gpu_bytes) : machine;
  const double needed = plan.memory_bytes - (on_gpu ? plan.host_bytes : 0);
  const double budget = recipe.budget.memory_gib * 1024 * 1024 * 1024;
  const bool by_recipe = budget > 0 && budget < room;
  const double limit = by_recipe ? budget : room;
  if (needed > limit) {
    std::vector<MemoryLine> lines = plan.memory;
    std::sort(lines.begin(), lines.end(),
              [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
    const bool has_teacher = std::any_of(lines.begin(), lines.end(), [](const MemoryLine& line) {
      return line.what == kTeacherLine;
    });
    const char* whose = by_recipe ? "budget.memory_gib allows "
                        : on_gpu  ? "the GPU has "
                                  : "this machine has ";
    const std::string message =
        StrCat("this job needs about ", FormatBytes(needed), ", ", whose, FormatBytes(limit),
               by_recipe || !shared ? "" : StrCat(" for each of its ", memory.sharing, " ranks"),
               ". The largest parts: ", lines[0].what, " ", FormatBytes(lines[0].bytes), ", ",
               lines[1].what, " ", FormatBytes(lines[1].bytes),
               ". Lower train.micro_batch or train.sequence_length, set "
               "train.activation_checkpointing: block, ",
               plan.ranks == 1 ? "" : "spread the state over the ranks (parallel.shard), ",
               has_teacher && !on_gpu ? "keep the teacher's weights as its file has them "
                                        "(teacher.runtime: engine), "
                                      : "",
               "or take a smaller model");
    if (by_recipe) throw RecipeError(message);
    throw ResourceError(message);
  }
  if (recipe.budget.minutes > 0 && plan.seconds > recipe.budget.minutes * 60) {
    throw RecipeError(StrCat("this job takes about ", FormatDuration(plan.seconds),
                             " here, budget.minutes allows ",
                             FormatDuration(recipe.budget.minutes * 60),
                             ". Lower train.steps, take a smaller model, or raise budget.minutes"));
  }
}

}  // namespace tern::plan
