// A train stage: loops over steps from the newest valid checkpoint to the recipe's last step, with
// periodic evaluation, checkpoints, metrics and health. Killed at any moment and run again, it
// reaches the same bits: everything a step depends on (parameters, moments, scaler, fault
// statistics, step number) is in the checkpoint, and the data of a step is a pure function of seed
// and step.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "data/token_source.h"
#include "distill/teacher.h"
#include "distill/teacher_store.h"
#include "metrics/journal.h"
#include "model/decoder.h"
#include "parallel/group.h"
#include "plan/plan.h"
#include "recipe/recipe.h"

namespace tern::train {

// Metric of a checkpoint by which the best is kept.
inline constexpr const char* kValidationLoss = "validation_loss";

struct TrainJob {
  const recipe::Recipe& recipe;
  const recipe::TrainStage& stage;
  std::string stage_folder;  // Where the checkpoints go
  std::string run_folder;    // metrics.jsonl and TensorBoard events
  const data::TokenSource& tokens;
  Journal& journal;
  std::string resolved_recipe;  // Kept in each checkpoint
  double gemm_flops = 0;        // Measured peak, for the live line
  // Values of the parameters when there is no checkpoint; empty: random ones by the recipe's seed.
  std::function<void(model::Decoder*)> initialize = {};
  // What the stage's losses compare with, one of the two; none: null.
  distill::Teacher* teacher = nullptr;
  const distill::TeacherStore* teacher_store = nullptr;
  // Not null: all ranks call Train together; the root keeps the logs, all write checkpoints.
  parallel::Group* group = nullptr;
  int32_t stop_token = -1;  // That ends a generated text; -1: none
  // In whose memory parameters, gradients, moments and batches are; the teacher must be there, too.
  at::Device device = at::kCPU;
};

struct TrainResult {
  int64_t steps = 0;
  double loss = 0;             // Of the last step
  double validation_loss = 0;  // Mean negative log-likelihood of the last evaluation, nats a token
  double tokens_per_second = 0;  // Of this process, evaluations and saves left out
  double seconds = 0;            // Of this process
};

// Throws NumericError (diverged), ResourceError (disk full), StoppedError after a stop signal with
// everything saved.
TrainResult Train(const TrainJob& job);

}  // namespace tern::train
