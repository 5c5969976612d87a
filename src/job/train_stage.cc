// The train and eval stages.
#include <sys/resource.h>

#include <iostream>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/stop_signal.h"
#include "data/mixture.h"
#include "eval/perplexity.h"
#include "job/stages.h"
#include "job/start.h"
#include "plan/plan.h"
#include "qat/quantized_model.h"
#include "train/attention_backend.h"
#include "train/train.h"

namespace tern::job {
namespace {

int64_t PeakRssBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;  // Linux counts in KiB.
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

}  // namespace

void CheckMachine(const recipe::TrainStage& stage) {
  if (stage.device == "cuda") {
    throw ResourceError(StrCat(
        stage.id, ".device is cuda: training on GPUs is not in this version; want cpu or auto"));
  }
  train::SelectAttention(stage.attention, stage.id + ".attention");
}

nlohmann::json RunStage(Context& context, const recipe::TrainStage& stage) {
  const data::TokenSource& tokens = context.Tokens();
  NoteShares(context, stage, tokens);
  if (context.gemm_flops == 0) context.gemm_flops = plan::MeasureGemmPeak();
  if (context.group != nullptr)  // One number, so that all ranks judge the budget alike
    context.gemm_flops = context.group->GatherNumbers({context.gemm_flops})[0][0];
  const plan::TrainPlan plan =
      plan::PlanTraining(context.recipe(), stage, context.gemm_flops, context.ranks());
  if (context.is_root()) std::cerr << plan::FormatPlan(context.recipe(), stage, plan);
  plan::CheckBudget(context.recipe(), plan);
  const std::optional<distill::TeacherStore> store = OpenTeacherStore(context, stage);
  const std::optional<model::Decoder> teacher = store ? std::nullopt : OpenTeacher(context, stage);
  const train::TrainResult result =
      train::Train({context.recipe(), stage, context.Path(stage.id), context.folder, tokens,
                    context.journal, context.resolved_yaml, context.gemm_flops,
                    [&](model::Decoder* decoder) { InitializeDecoder(context, stage, decoder); },
                    teacher ? &*teacher : nullptr, store ? &*store : nullptr, context.group});
  const double share = result.tokens_per_second *
                       plan::FlopsPerToken(context.recipe().model, stage.sequence_length) /
                       (context.gemm_flops * context.ranks());
  return {{"steps", result.steps},
          {"ranks", context.ranks()},
          {"loss", result.loss},
          {"validation_loss", result.validation_loss},
          {"tokens_per_second", result.tokens_per_second},
          {"share_of_gemm_peak", share},
          {"seconds_of_last_process", result.seconds},
          {"parameters", plan.parameters},
          {"predicted_memory_bytes", plan.memory_bytes},
          {"peak_memory_bytes", PeakRssBytes()}};
}

nlohmann::json RunStage(Context& context, const recipe::EvalStage& stage) {
  std::string folder;
  if (context.is_root()) folder = CheckpointFolder(context, "last");
  if (context.group != nullptr) folder = context.group->FromRoot(folder);
  const checkpoint::CheckpointReader reader(folder);
  const model::Decoder decoder = qat::LoadShipped(reader);
  eval::PerplexityOptions options;
  options.split = data::SplitFromName(stage.split);
  options.sequence_length = decoder.config().context_length;
  options.max_tokens = stage.tokens;
  options.packing = context.recipe().data.packing == recipe::Packing::kDocuments
                        ? data::Packing::kDocuments
                        : data::Packing::kStream;
  options.group = context.group;
  std::optional<ProgressLine> progress;
  if (context.is_root()) {
    progress.emplace(stage.id, "windows", ProgressLine::Options{});
    options.progress = [&](int64_t done, int64_t) { progress->Update(done); };
  }
  const eval::PerplexityResult result = eval::Perplexity(decoder, context.Tokens(), options);
  if (progress) progress->Finish();
  if (!result.complete) {
    throw StoppedError(StrCat("stopped by ", SignalName(StopSignal()), " during ", stage.id,
                              "; run the same command again to go on"));
  }
  return {{"split", stage.split},
          {"loss", result.loss},
          {"perplexity", result.perplexity},
          {"tokens", result.tokens},
          {"sequence_length", options.sequence_length}};
}

}  // namespace tern::job
