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

// Bytes that one layer keeps for backward, a token: fp32 inputs of the norms (2 D), q, k, v, the
// attention output, gate, up and their product, and what the linear layers keep of their inputs
// (int8 when BitLinear, else fp32).
double LayerBytesPerToken(const ModelConfig& m) {
  const double d = static_cast<double>(m.hidden_size), f = static_cast<double>(m.intermediate_size);
  const double e = static_cast<double>(m.HeadDim());
  const double q = e * static_cast<double>(m.num_heads),
               kv = e * static_cast<double>(m.num_kv_heads);
  const double linear_inputs = 2 * d + q + f;
  const double input_bytes = m.linear == LinearKind::kBitLinear ? 1 : kFloat;
  return kFloat * (2 * d + 2 * q + 2 * kv + 3 * f) + input_bytes * linear_inputs;
}

std::vector<MemoryLine> MemoryLines(const ModelConfig& model, const recipe::TrainStage& stage,
                                    double parameters) {
  const double rows = static_cast<double>(MicroBatch(stage) * stage.sequence_length);
  const double layers = static_cast<double>(model.num_layers),
               d = static_cast<double>(model.hidden_size);
  const bool blocks = stage.activation_checkpointing == recipe::ActivationCheckpointing::kBlock;
  const double a_layer = LayerBytesPerToken(model) * rows;
  const double activations = blocks ? a_layer + layers * kFloat * d * rows : layers * a_layer;
  const double vocabulary = static_cast<double>(model.vocab_size);
  const double logits =
      static_cast<double>(std::min<int64_t>(stage.loss_chunk_tokens, static_cast<int64_t>(rows))) *
      vocabulary * kFloat * 2;  // Logits and their rounded copy
  // Workspace of one layer's backward: gradients of the FFN's three products and one dequantized
  // operand.
  const double workspace =
      rows * kFloat * (4 * static_cast<double>(model.intermediate_size) + 2 * d);
  return {{"parameters (fp32)", kFloat * parameters},
          {"gradients (fp32)", kFloat * parameters},
          {"AdamW moments (fp32)", 2 * kFloat * parameters},
          {"activations kept for backward", activations},
          {"logits of one chunk", logits},
          {"workspace", workspace},
          {"process and libtorch", kProcessBytes}};
}

std::string Percent(double share) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(0) << 100 * share << " %";
  return out.str();
}

}  // namespace

double FlopsPerToken(const ModelConfig& model, int64_t sequence_length) {
  const double attention = 2.0 * 2.0 * 0.5 *
                           static_cast<double>(sequence_length * model.num_layers) *
                           static_cast<double>(model.num_heads * model.HeadDim());
  return 3.0 * (2.0 * MatrixWeights(model) + attention);
}

int64_t MicroBatch(const recipe::TrainStage& stage) {
  if (stage.micro_batch > 0) return stage.micro_batch;
  const int64_t sequences = stage.tokens_per_step / stage.sequence_length;
  int64_t micro = std::min(sequences, kMaxAutoSequences);
  while (sequences % micro != 0) --micro;  // Whole micro-batches only.
  return micro;
}

TrainPlan PlanTraining(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
                       double gemm_flops) {
  const ModelConfig& model = recipe.model;
  TrainPlan plan;
  for (const ParameterSpec& spec : ParameterTable(model)) {
    plan.parameters += spec.Count();
    const bool ternary =
        spec.role == ParameterRole::kLinear && model.linear == LinearKind::kBitLinear;
    if (ternary) plan.ternary_parameters += spec.Count();
  }
  plan.tokens = stage.steps * stage.tokens_per_step;
  plan.micro_batches = stage.tokens_per_step / (MicroBatch(stage) * stage.sequence_length);
  plan.flops = FlopsPerToken(model, stage.sequence_length) * static_cast<double>(plan.tokens);
  plan.memory = MemoryLines(model, stage, static_cast<double>(plan.parameters));
  for (const MemoryLine& line : plan.memory) plan.memory_bytes += line.bytes;
  plan.checkpoint_bytes = 3 * kFloat * static_cast<double>(plan.parameters);
  if (gemm_flops > 0) plan.seconds = plan.flops / (gemm_flops * kExpectedPeakShare);
  return plan;
}

double MeasureGemmPeak() {
  constexpr int64_t kSize = 1024;
  constexpr int kRuns = 12;
  const at::Tensor a = at::ones({kSize, kSize}), b = at::ones({kSize, kSize});
  double best_s = 1e30;
  for (int run = 0; run < kRuns; ++run) {
    const auto begin = std::chrono::steady_clock::now();
    const at::Tensor c = at::mm(a, b);
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
      << plan.micro_batches << " forward passes of " << MicroBatch(stage) << " x "
      << stage.sequence_length << ")\n"
      << "  work         " << FormatSi(plan.flops) << "FLOP";
  if (plan.seconds > 0) {
    out << ", about " << FormatDuration(plan.seconds) << " on " << at::get_num_threads()
        << " threads (" << FormatSi(plan.flops / plan.seconds / kExpectedPeakShare)
        << "FLOP/s measured GEMM peak)";
  }
  out << "\n  memory       " << FormatBytes(plan.memory_bytes) << " at most:\n";
  for (const MemoryLine& line : plan.memory) {
    out << "    " << std::left << std::setw(34) << line.what << std::right << std::setw(12)
        << FormatBytes(line.bytes) << "\n";
  }
  out << "  checkpoint   " << FormatBytes(plan.checkpoint_bytes) << " each\n";
  return out.str();
}

void CheckBudget(const recipe::Recipe& recipe, const TrainPlan& plan) {
  const double machine =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE));
  const double budget = recipe.budget.memory_gib * 1024 * 1024 * 1024;
  const bool by_recipe = budget > 0 && budget < machine;
  const double limit = by_recipe ? budget : machine;
  if (plan.memory_bytes > limit) {
    std::vector<MemoryLine> lines = plan.memory;
    std::sort(lines.begin(), lines.end(),
              [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
    const std::string message =
        StrCat("this job needs about ", FormatBytes(plan.memory_bytes), ", ",
               by_recipe ? "budget.memory_gib allows " : "this machine has ", FormatBytes(limit),
               ". The largest parts: ", lines[0].what, " ", FormatBytes(lines[0].bytes), ", ",
               lines[1].what, " ", FormatBytes(lines[1].bytes),
               ". Lower train.micro_batch or train.sequence_length, set "
               "train.activation_checkpointing: block, or take "
               "a smaller model");
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
