// See train.h. Trainer holds one stage's state and runs its steps; what a step computes is in
// step.cc, what is saved in train_state.cc, how in checkpointer.cc, what is logged in step_log.cc.
#include "train/train.h"

#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/stop_signal.h"
#include "data/loader.h"
#include "distill/objective.h"
#include "eval/perplexity.h"
#include "qat/quantized_model.h"
#include "recipe/frozen.h"
#include "train/attention_backend.h"
#include "train/checkpointer.h"
#include "train/health.h"
#include "train/schedule.h"
#include "train/step.h"
#include "train/step_log.h"
#include "train/train_state.h"

namespace tern::train {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool Due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

// Nothing when the stage minimises plain cross-entropy.
std::optional<distill::Objective> MakeObjective(const TrainJob& job) {
  if (IsPlain(job.stage.losses)) return std::nullopt;
  return distill::Objective(job.stage, job.recipe.model, job.teacher, job.teacher_store,
                            static_cast<uint64_t>(job.recipe.seed));
}

// Whether any rank of the group was asked to stop, the same answer for all.
bool AnyStops(parallel::Group& group) {
  bool stops = false;
  for (const auto& said : group.GatherNumbers({StopRequested() ? 1.0 : 0.0}))
    stops = stops || said[0] != 0;
  return stops;
}

// What is trained beside the decoder.
std::vector<model::Parameter> ExtraParameters(const std::optional<distill::Objective>& objective,
                                              const qat::QuantizedModel& quantized) {
  std::vector<model::Parameter> extra = quantized.parameters();
  if (objective)
    extra.insert(extra.end(), objective->parameters().begin(), objective->parameters().end());
  return extra;
}

class Trainer {
 public:
  explicit Trainer(const TrainJob& job);
  TrainResult Run();

 private:
  bool is_root() const { return job_.group == nullptr || job_.group->is_root(); }
  int ranks() const { return job_.group == nullptr ? 1 : job_.group->size(); }
  // Whether this rank sees what the weights do: the root, with the ranks that hold its slices.
  bool measures_health() const { return state_.sharding.data_rank() == 0; }

  // The newest valid checkpoint, the same for all ranks: the root looks.
  std::optional<std::string> FindCheckpoint();
  void Resume();
  void Initialize();
  StepLogOptions LogOptions() const;
  std::unique_ptr<data::BatchLoader> MakeLoader() const;
  StepOptions ForwardOptions(nn::BitLinearObserver* observer);
  // Of a step of so many sequences in all.
  distill::PassOptions ObjectiveOptions(const StepOptions& step, int64_t sequences);
  // Gradients and the loss of one step; the parts of the loss when there are several.
  void ForwardBackwardPasses(const data::Batch& batch, nn::BitLinearObserver* observer,
                             StepRecord* record);

  // One step: forward, backward, update or skip. Advances state_.step unless it rolls back.
  void Step();
  // Joins what the ranks know of a step: its loss, stop signals, whether all read the same data.
  void Agree(StepRecord* record);
  // Update or skip; fills the record. Returns false after a roll-back.
  bool Apply(StepRecord* record, HealthProbe* probe);
  void RollBack(const std::string& reason);
  void Evaluate();
  void Save(bool background);
  void StopIfAsked();
  // Makes stop_signal_ what all ranks know of; Agree does the same in a step.
  void AgreeToStop();
  // Runs what waits for other ranks inside libtorch.
  void Guarded(const std::function<void()>& work);

  const TrainJob& job_;
  const recipe::TrainStage& stage_;
  std::optional<distill::Objective> objective_;  // Nothing: plain cross-entropy
  qat::QuantizedModel quantized_;                // Empty: parameters are used as they are
  TrainState state_;
  std::unique_ptr<StepLog> log_;
  std::unique_ptr<data::BatchLoader> loader_;
  Checkpointer checkpointer_{job_};
  bool warned_ = false;       // Of losses out of balance
  bool all_written_ = true;   // No rank still writes a checkpoint
  int stop_signal_ = 0;       // Which one all ranks agree to stop for
  std::string nonfinite_on_;  // "on rank 1": whose part of the loss is not finite
  double begin_ = Now();
};

Trainer::Trainer(const TrainJob& job)
    : job_(job),
      stage_(job.stage),
      objective_(MakeObjective(job)),
      quantized_(job.stage, job.recipe.model, static_cast<uint64_t>(job.recipe.seed), job.device),
      state_(job.recipe, job.stage, job.group, ExtraParameters(objective_, quantized_),
             job.device) {
  SelectAttention(stage_.attention, stage_.id + ".attention", job.device);
  Resume();
  if (is_root()) log_ = std::make_unique<StepLog>(LogOptions());
  loader_ = MakeLoader();
}

StepLogOptions Trainer::LogOptions() const {
  StepLogOptions options;
  options.run_folder = job_.run_folder;
  options.stage = stage_.id;
  options.first_step = state_.step;
  options.total_steps = stage_.steps;
  options.flops_per_token = plan::FlopsPerToken(job_.recipe.model, stage_.sequence_length);
  options.gemm_flops = job_.gemm_flops * ranks();
  return options;
}

std::unique_ptr<data::BatchLoader> Trainer::MakeLoader() const {
  data::LoaderOptions options;
  options.sequence_length = stage_.sequence_length;
  options.sequences_per_step = stage_.tokens_per_step / stage_.sequence_length;
  options.seed = static_cast<uint64_t>(job_.recipe.seed);
  options.packing = PackingOf(job_.recipe.data.packing);
  options.first_step = state_.step + state_.data_offset;
  return std::make_unique<data::BatchLoader>(job_.tokens, options);
}

std::optional<std::string> Trainer::FindCheckpoint() {
  std::string path;
  const auto find = [&] {
    const checkpoint::Found found = checkpoint::FindNewestValid(job_.stage_folder);
    for (const checkpoint::Refused& refused : found.refused) {
      LogWarn("checkpoint refused: ", refused.path, ": ", refused.reason);
      job_.journal.Append("checkpoint_refused",
                          {{"path", refused.path}, {"reason", refused.reason}});
    }
    path = found.path.value_or("");
  };
  if (job_.group == nullptr) {
    find();
  } else {
    job_.group->OnRoot(find);
    path = job_.group->FromRoot(path);
  }
  if (path.empty()) return std::nullopt;
  return path;
}

void Trainer::Resume() {
  const std::optional<std::string> found = FindCheckpoint();
  if (!found) {
    Initialize();
    return;
  }
  LoadTrainState(checkpoint::CheckpointReader(*found), &state_);
  checkpointer_.set_saved_step(state_.step);
  LogInfo("resumed from ", *found);
  job_.journal.Append(
      "resumed",
      {{"stage", stage_.id}, {"step", state_.step}, {"path", *found}, {"ranks", ranks()}});
}

void Trainer::Initialize() {
  if (job_.initialize) {
    job_.initialize(&state_.decoder);
  } else {
    state_.decoder.Initialize(static_cast<uint64_t>(job_.recipe.seed));
  }
  state_.sharding.ValuesLoaded();
  quantized_.Start(state_.decoder);
  for (const std::string& line : qat::Describe(quantized_.rules(), job_.recipe.model)) {
    if (!quantized_.empty()) LogInfo(stage_.id, ": ", line);
  }
  const std::string frozen = recipe::DescribeFrozen(stage_, job_.recipe.model);
  if (!frozen.empty()) LogInfo(stage_.id, ": freeze: ", frozen);
}

StepOptions Trainer::ForwardOptions(nn::BitLinearObserver* observer) {
  StepOptions options;
  options.compute = ComputeTypeOf(stage_.precision);
  options.checkpoint_blocks =
      stage_.activation_checkpointing == recipe::ActivationCheckpointing::kBlock;
  options.micro_batch = plan::MicroBatch(stage_, state_.sharding.data_ranks());
  options.rank = state_.sharding.data_rank();
  options.ranks = state_.sharding.data_ranks();
  options.sharding = &state_.sharding;
  options.loss_chunk_tokens = stage_.loss_chunk_tokens;
  options.loss_scale = state_.scaler.scale();
  options.observer = observer;
  options.quantized_share = qat::QuantizedShare(stage_.quantize, state_.step);
  options.finishes_gradients = false;
  return options;
}

distill::PassOptions Trainer::ObjectiveOptions(const StepOptions& step, int64_t sequences) {
  distill::PassOptions options;
  options.compute = step.compute;
  options.checkpoint_blocks = step.checkpoint_blocks;
  options.micro_batch = step.micro_batch;
  options.chunk_rows = step.loss_chunk_tokens;
  options.loss_scale = step.loss_scale;
  options.observer = step.observer;
  options.quantized_share = step.quantized_share;
  options.first_sample = (state_.step + state_.data_offset) * sequences;
  options.measures_gradients =
      stage_.losses.log_gradients_every > 0 && state_.step % stage_.losses.log_gradients_every == 0;
  options.balance = &state_.balance;
  options.stop_token = job_.stop_token;
  options.rank = step.rank;
  options.ranks = step.ranks;
  if (step.ranks == 1) return options;
  options.before_backward = [this](bool last) { state_.sharding.BeforeBackward(last); };
  options.gather_over_ranks = [this](const std::vector<double>& mine) {
    return state_.sharding.data_group()->GatherNumbers(mine);
  };
  return options;
}

void Trainer::ForwardBackwardPasses(const data::Batch& batch, nn::BitLinearObserver* observer,
                                    StepRecord* record) {
  const StepOptions options = ForwardOptions(observer);
  std::optional<model::Decoder> quantized;
  if (!quantized_.empty()) quantized.emplace(quantized_.Begin(state_.decoder, state_.step));
  const model::Decoder& decoder = quantized ? *quantized : state_.decoder;
  if (!objective_) {
    record->loss = ForwardBackward(decoder, batch, options);
  } else {
    record->losses = objective_->ForwardBackward(decoder, batch, state_.step,
                                                 ObjectiveOptions(options, batch.batch));
    record->loss = record->losses.loss;
  }
  quantized_.End();
  state_.sharding.FinishGradients();
  state_.sharding.SumGradients(state_.extra);
  if (warned_ || !is_root()) return;
  const std::string unbalanced =
      distill::WhyUnbalanced(record->losses.values, state_.balance.enabled());
  if (unbalanced.empty()) return;
  warned_ = true;  // Once a process: it holds for many steps
  LogWarn(stage_.id, ", step ", state_.step + 1, ": ", unbalanced);
  job_.journal.Append("losses_unbalanced", {{"step", state_.step + 1}, {"reason", unbalanced}});
}

void Trainer::Step() {
  const bool probes = Due(state_.step + 1, stage_.health_every) &&
                      job_.recipe.model.linear == LinearKind::kBitLinear;
  const data::Batch batch = loader_->Next();
  ClipCounter clips;
  HealthProbe probe(state_.sharding.source(), state_.sharding.tensor_group());
  StepRecord record;
  const double begin = Now();
  record.loss_scale = state_.scaler.scale();
  Guarded([&] { ForwardBackwardPasses(batch, probes ? &clips : nullptr, &record); });
  record.tokens = batch.batch * batch.tokens;
  record.data_hash = batch.Hash();
  Agree(&record);
  const bool advanced = Apply(&record, probes ? &probe : nullptr);
  state_.optimizer.ZeroGrad();
  state_.sharding.DropGradients();
  if (!advanced) return;
  record.seconds = Now() - begin;
  if (probes && !record.skipped) {
    if (job_.group != nullptr) clips.Sum(*job_.group);
    state_.sharding.PrepareForward();
    if (measures_health()) record.health = probe.AfterUpdate(state_.decoder.parameters());
    record.health["clip"] = clips.Shares();
  }
  state_.loss = record.loss;
  ++state_.step;
  if (Due(state_.step, stage_.eval_every) || state_.step == stage_.steps) {
    Evaluate();
    if (state_.evaluated_step == state_.step) record.validation_loss = state_.validation_loss;
  }
  if (log_) log_->Step(state_.step, record);
}

void Trainer::Guarded(const std::function<void()>& work) {
  job_.group == nullptr ? work() : job_.group->Guard(work);
}

void Trainer::Agree(StepRecord* record) {
  stop_signal_ = StopSignal();
  all_written_ = checkpointer_.HasEnded();
  if (job_.group == nullptr) return;
  const auto high = static_cast<double>(record->data_hash >> 32),
             low = static_cast<double>(record->data_hash & 0xffffffffu);
  const auto all = job_.group->GatherNumbers(
      {record->loss, static_cast<double>(StopSignal()), high, low, all_written_ ? 1.0 : 0.0});
  for (size_t rank = 0; rank < all.size(); ++rank) {  // First: other data have other losses
    TERN_CHECK_INPUT(all[rank][2] == high && all[rank][3] == low, "step ", state_.step + 1,
                     ": rank ", rank, " has read other data than rank ", job_.group->rank(),
                     "; do all ranks see the same files?");
  }
  record->loss = 0;
  nonfinite_on_.clear();
  const auto tensor = static_cast<size_t>(job_.recipe.parallel.tensor);
  for (size_t rank = 0; rank < all.size(); ++rank) {
    const std::vector<double>& said = all[rank];
    // Ranks of a tensor group have run the same sequences.
    const std::vector<double>& first = all[rank - rank % tensor];
    if (&said == &first) {
      record->loss += said[0];
    } else if (std::isfinite(said[0]) && std::isfinite(first[0]) && said[0] != first[0]) {
      throw NumericError(StrCat(
          "step ", state_.step + 1, ": rank ", rank, " has a loss of ", said[0], ", and rank ",
          rank - rank % tensor, ", which shares its products (parallel.tensor), ", first[0],
          ": what both hold has drifted apart. Do they run on processors of one kind, with as "
          "many threads? Run again to go on from the last checkpoint"));
    }
    if (!std::isfinite(said[0]))
      nonfinite_on_ += StrCat(nonfinite_on_.empty() ? "on rank " : ", ", rank);
    if (stop_signal_ == 0) stop_signal_ = static_cast<int>(said[1]);
    all_written_ = all_written_ && said[4] != 0;
  }
}

bool Trainer::Apply(StepRecord* record, HealthProbe* probe) {
  record->learning_rate = LearningRate(stage_.schedule, state_.step, stage_.steps);
  record->weight_decay = WeightDecay(stage_.optimizer, state_.step, stage_.steps);
  const std::vector<double> squares = state_.sharding.SumSquares(state_.optimizer.GradSquares());
  record->grad_norm = NormOf(squares, record->loss_scale);
  const bool overflow =
      !std::isfinite(record->grad_norm) && std::isfinite(record->loss) && state_.scaler.enabled();
  if (overflow) {
    record->skipped = true;
    job_.journal.Append("overflow",
                        {{"step", state_.step + 1}, {"loss_scale", record->loss_scale}});
    state_.scaler.Update(/*overflow=*/true);
    return true;
  }
  const std::optional<Fault> fault =
      state_.faults.Check(record->loss, record->grad_norm, nonfinite_on_);
  if (fault && fault->action == recipe::FaultAction::kRollback) {
    RollBack(fault->reason);
    return false;
  }
  if (fault) {
    record->skipped = true;
    LogWarn("step ", state_.step + 1, " skipped: ", fault->reason);
    job_.journal.Append("step_skipped", {{"step", state_.step + 1}, {"reason", fault->reason}});
    return true;
  }
  if (probe != nullptr && measures_health()) {
    probe->BeforeUpdate(state_.decoder.parameters(), squares, record->loss_scale);
  }
  state_.optimizer.Step(record->learning_rate, record->weight_decay, record->grad_norm,
                        record->loss_scale);
  state_.sharding.AfterUpdate();
  state_.scaler.Update(/*overflow=*/false);
  return true;
}

void Trainer::RollBack(const std::string& reason) {
  const int64_t bad_step = state_.step + 1, bad_data = state_.step + state_.data_offset;
  const nlohmann::json faults =
      state_.faults.Save();  // Keeps counting: a loop of roll-backs must end.
  checkpointer_.Finish();
  const std::optional<std::string> found = FindCheckpoint();
  if (!found) {
    throw NumericError(StrCat("step ", bad_step, ": ", reason,
                              ", and there is no checkpoint to roll back to. Lower "
                              "train.checkpoint_every or the learning rate"));
  }
  LoadTrainState(checkpoint::CheckpointReader(*found), &state_);
  state_.faults.Load(faults);
  state_.data_offset =
      bad_data + 1 - state_.step;  // The next step reads what follows the bad step's data.
  LogWarn("step ", bad_step, ": ", reason, "; rolled back to step ", state_.step);
  job_.journal.Append("rolled_back", {{"from", bad_step},
                                      {"to", state_.step},
                                      {"reason", reason},
                                      {"data_offset", state_.data_offset}});
  if (log_) log_->RollBackTo(state_.step);
  loader_ = MakeLoader();
}

void Trainer::Evaluate() {
  eval::PerplexityOptions options;
  options.sequence_length = stage_.sequence_length;
  options.max_tokens = stage_.eval_tokens;
  options.batch = plan::MicroBatch(stage_, state_.sharding.data_ranks());
  options.packing = PackingOf(job_.recipe.data.packing);
  options.group = state_.sharding.data_group();
  options.source = state_.sharding.source();
  options.tensor = state_.sharding.tensor();
  if (parallel::Group* tensor = state_.sharding.tensor_group(); tensor != nullptr)
    options.stop_requested = [tensor] { return AnyStops(*tensor); };
  state_.sharding.PrepareForward();
  const model::Decoder decoder =
      quantized_.empty() ? state_.decoder : quantized_.Shipped(state_.decoder);
  const eval::PerplexityResult result = eval::Perplexity(decoder, job_.tokens, options);
  if (!result.complete) {  // A stop signal: the evaluation is made again after the resume.
    AgreeToStop();
    return;
  }
  state_.evaluated_step = state_.step;
  state_.validation_loss = result.loss;
  job_.journal.Append("evaluated", {{"stage", stage_.id},
                                    {"step", state_.step},
                                    {"validation_loss", result.loss},
                                    {"perplexity", result.perplexity},
                                    {"tokens", result.tokens}});
}

void Trainer::Save(bool background) {
  if (log_) log_->Sync();
  checkpointer_.Save(state_, quantized_.ToJson(), background);
}

void Trainer::StopIfAsked() {
  if (stop_signal_ == 0) return;
  checkpointer_.Finish();
  if (checkpointer_.saved_step() != state_.step) Save(/*background=*/false);
  const char* signal = SignalName(stop_signal_);
  job_.journal.Append("stopped", {{"stage", stage_.id}, {"step", state_.step}, {"signal", signal}});
  throw StoppedError(StrCat("stopped by ", signal, " after step ", state_.step,
                            " with everything saved; run the same command again to go on"));
}

void Trainer::AgreeToStop() {
  stop_signal_ = StopSignal();
  if (job_.group == nullptr) return;
  for (const auto& said : job_.group->GatherNumbers({static_cast<double>(stop_signal_)})) {
    if (stop_signal_ == 0) stop_signal_ = static_cast<int>(said[0]);
  }
}

TrainResult Trainer::Run() {
  const bool missed_evaluation =
      state_.step > 0 && state_.evaluated_step != state_.step &&
      (Due(state_.step, stage_.eval_every) || state_.step == stage_.steps);
  if (missed_evaluation) {
    Evaluate();
    if (log_ && state_.evaluated_step == state_.step)
      log_->Validation(state_.step, state_.validation_loss);
  }
  AgreeToStop();
  while (state_.step < stage_.steps) {
    StopIfAsked();
    Step();
    if (job_.group != nullptr) job_.group->UseFirstStepTimeout(false);
    if (stop_signal_ != 0) continue;
    if (all_written_) checkpointer_.Finish();
    if (state_.step == stage_.steps || Due(state_.step, stage_.checkpoint_every))
      Save(stage_.checkpoint_async && state_.step < stage_.steps);
  }
  StopIfAsked();
  checkpointer_.Finish();
  if (checkpointer_.saved_step() != state_.step) Save(/*background=*/false);
  if (!log_) return {state_.step, state_.loss, state_.validation_loss, 0, Now() - begin_};
  log_->Finish();
  return {state_.step, state_.loss, state_.validation_loss, log_->TokensPerSecond(),
          Now() - begin_};
}

}  // namespace

TrainResult Train(const TrainJob& job) {
  if (job.group != nullptr) job.group->UseFirstStepTimeout(true);  // Making the state meets, too
  return Trainer(job).Run();
}

}  // namespace tern::train
