// What a training step tells the world: metrics.jsonl, TensorBoard events, the live line. Times are
// of this process only and never influence the training.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "distill/objective.h"
#include "metrics/metrics_log.h"
#include "metrics/tensorboard.h"

namespace tern::train {

struct StepRecord {
  double loss = 0, grad_norm = 0, learning_rate = 0, weight_decay = 0, loss_scale = 1;
  int64_t tokens = 0;                     // Targets of this step
  double seconds = 0;                     // Forward, backward and update
  uint64_t data_hash = 0;                 // Of the step's token ids
  bool skipped = false;                   // No update: overflow or fault
  std::optional<double> validation_loss;  // When an evaluation followed the update
  nlohmann::json health;                  // Null when not measured
  distill::StepLosses losses;             // Parts of the loss, when it has several
};

struct StepLogOptions {
  std::string run_folder, stage;
  int64_t first_step = 0, total_steps = 0;
  double flops_per_token = 0, gemm_flops = 0;  // gemm_flops 0: the share of the peak is left out
};

class StepLog {
 public:
  explicit StepLog(const StepLogOptions& options);

  // `step` counts from 1: the step that was just made.
  void Step(int64_t step, const StepRecord& record);
  // An evaluation made on resuming at `step`, whose record is written already.
  void Validation(int64_t step, double loss);
  void RollBackTo(int64_t step);
  // On disk when it returns; called before a checkpoint.
  void Sync() { metrics_.Sync(); }
  void Finish();

  // Tokens a second over the steps of this process, evaluations and saves left out.
  double TokensPerSecond() const {
    return seconds_ > 0 ? static_cast<double>(tokens_) / seconds_ : 0;
  }

 private:
  StepLogOptions options_;
  MetricsLog metrics_;
  TensorBoardWriter events_;
  ProgressLine progress_;
  int64_t tokens_ = 0;
  double seconds_ = 0;
};

}  // namespace tern::train
