// The train stage.
#include <sys/resource.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "data/mixture.h"
#include "job/stages.h"
#include "job/start.h"
#include "metrics/metrics_log.h"
#include "plan/plan.h"
#include "train/attention_backend.h"
#include "train/placement.h"
#include "train/tensor_memory.h"
#include "train/train.h"

namespace tern::job {
namespace {

int64_t PeakRssBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;  // Linux counts in KiB.
}

int64_t MostOfAnyRank(const Context& context, int64_t mine) {
  if (context.group == nullptr) return mine;
  double most = 0;
  for (const auto& said : context.group->GatherNumbers({static_cast<double>(mine)}))
    most = std::max(most, said[0]);
  return static_cast<int64_t>(most);
}

// How often a mixture's sources are gone through in the whole stage.
void NoteShares(const Context& context, const recipe::TrainStage& stage,
                const data::TokenSource& tokens) {
  if (context.recipe().data.sources.empty()) return;
  const data::MixtureSampler sampler(tokens.Parts(data::Split::kTrain), stage.sequence_length,
                                     static_cast<uint64_t>(context.recipe().seed));
  const int64_t samples = stage.steps * (stage.tokens_per_step / stage.sequence_length);
  for (const data::MixtureSampler::Share& share : sampler.Shares(samples)) {
    LogInfo(stage.id, ": ", share.name, " gives ", share.samples, " of ", samples,
            " samples, its text ", share.epochs, " times");
  }
}

// Adds what the stage's records tell of its losses: "losses", the last record with gradients, and
// "generated", of the steps on generated text their number, tokens and writer.
void AddRecorded(const Context& context, const std::string& id, nlohmann::json* out) {
  int64_t steps = 0, tokens = 0;
  std::string by;
  for (const MetricsRecord& record : ReadMetrics(context.Path("metrics.jsonl"))) {
    if (record.stage != id) continue;
    if (const auto found = record.values.find("generated"); found != record.values.end()) {
      ++steps;
      tokens += found->at("tokens").get<int64_t>();
      by = found->at("by").get<std::string>();
    }
    const auto losses = record.values.find("losses");
    if (losses == record.values.end()) continue;
    const bool measured = std::any_of(losses->begin(), losses->end(),
                                      [](const auto& loss) { return loss.contains("grad_share"); });
    if (measured) (*out)["losses"] = *losses;
  }
  if (steps > 0) (*out)["generated"] = {{"by", by}, {"steps", steps}, {"tokens", tokens}};
}

}  // namespace

void CheckMachine(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
                  const c10::Device& device) {
  const std::string why_not = train::WhyNotOnGpu(recipe, stage);
  if (stage.device == "cuda" && !why_not.empty())
    throw RecipeError(StrCat(why_not, "; found ", stage.id, ".device: cuda, want cpu or auto"));
  if (stage.device == "auto" && !device.is_cpu() && !why_not.empty())
    LogInfo(why_not, ", and device is auto");
  if (stage.device == "cuda" && device.is_cpu())
    throw ResourceError(StrCat(stage.id, ".device is cuda, and this process took no GPU"));
  train::SelectAttention(stage.attention, stage.id + ".attention",
                         train::DeviceOf(recipe, stage, device));
}

nlohmann::json RunStage(Context& context, const recipe::TrainStage& stage) {
  const data::TokenSource& tokens = context.TokensFor(stage.sequence_length);
  NoteShares(context, stage, tokens);
  const c10::Device device = context.DeviceOf(stage);
  double& gemm_flops = context.gemm_flops[device.type()];
  if (gemm_flops == 0) gemm_flops = plan::MeasureGemmPeak(device);
  if (context.group != nullptr)  // One number, so that all ranks judge the budget alike
    gemm_flops = context.group->GatherNumbers({gemm_flops})[0][0];
  const plan::TrainPlan plan =
      plan::PlanTraining(context.recipe(), stage, gemm_flops, {.ranks = context.ranks()});
  if (context.is_root()) std::cerr << plan::FormatPlan(context.recipe(), stage, plan);
  plan::CheckBudget(context.recipe(), plan, MemoryOf(context.group, device));
  train::TensorMemory::Count();
  const int64_t before = train::TensorMemory::Bytes(device);  // The plan has the teacher, too
  const std::optional<distill::TeacherStore> store = OpenTeacherStore(context, stage);
  const std::unique_ptr<distill::Teacher> teacher = store ? nullptr : OpenTeacher(context, stage);
  train::TensorMemory::RestartPeak(device);
  const train::TrainResult result = train::Train(
      {context.recipe(), stage, context.Path(stage.id), context.folder, tokens, context.journal,
       context.resolved_yaml, gemm_flops,
       [&](model::Decoder* decoder) { InitializeDecoder(context, stage, decoder); }, teacher.get(),
       store ? &*store : nullptr, context.group, context.Tokenizer().table().eos_id, device});
  const double share = result.tokens_per_second *
                       plan::FlopsPerToken(context.recipe().model, stage.sequence_length) /
                       (gemm_flops * context.ranks());
  nlohmann::json out = {{"steps", result.steps},
                        {"ranks", context.ranks()},
                        {"device", c10::DeviceTypeName(device.type(), /*lower_case=*/true)},
                        {"loss", result.loss},
                        {"validation_loss", result.validation_loss},
                        {"tokens_per_second", result.tokens_per_second},
                        {"share_of_gemm_peak", share},
                        {"seconds_of_last_process", result.seconds},
                        {"parameters", plan.parameters},
                        {"peak_tensor_bytes",
                         MostOfAnyRank(context, train::TensorMemory::PeakBytes(device) - before)},
                        {"predicted_tensor_bytes", plan.tensor_bytes},
                        {"predicted_memory_bytes", plan.memory_bytes},
                        {"peak_memory_bytes", PeakRssBytes()}};
  if (teacher) out["teacher"] = TeacherFacts(context.recipe());
  if (context.is_root()) AddRecorded(context, stage.id, &out);  // Whose result is kept
  return out;
}

}  // namespace tern::job
