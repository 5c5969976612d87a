// See step_log.h.
#include "train/step_log.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"

namespace tern::train {
namespace {

ProgressLine::Options ProgressOptions(const StepLogOptions& options) {
  ProgressLine::Options progress;
  progress.total = options.total_steps;
  progress.start = options.first_step;
  return progress;
}

// Numbers of nested objects as "health/q_proj/zeros".
void Flatten(const nlohmann::json& json, const std::string& prefix,
             std::vector<std::pair<std::string, double>>* out) {
  for (const auto& [key, value] : json.items()) {
    const std::string name = StrCat(prefix, "/", key);
    if (value.is_object()) {
      Flatten(value, name, out);
    } else if (value.is_number()) {
      out->emplace_back(name, value.get<double>());
    }
  }
}

// {"forward_kl": {"value", "weight", "share": of the sum of |weight * value|}, ...}; where
// gradients were measured also "grad_norm" and "grad_share": of the sum of weight * grad_norm.
nlohmann::json LossesJson(const std::vector<distill::LossValue>& parts) {
  nlohmann::json json = nlohmann::json::object();
  double sum = 0, gradients = 0;
  for (const distill::LossValue& part : parts) {
    sum += std::fabs(part.weight * part.value);
    gradients += part.weight * std::max(part.grad_norm, 0.0);
  }
  for (const distill::LossValue& part : parts) {
    const double weighted = std::fabs(part.weight * part.value);
    json[part.name] = {
        {"value", part.value}, {"weight", part.weight}, {"share", sum > 0 ? weighted / sum : 0.0}};
    if (part.grad_norm < 0) continue;
    json[part.name]["grad_norm"] = part.grad_norm;
    json[part.name]["grad_share"] = gradients > 0 ? part.weight * part.grad_norm / gradients : 0.0;
  }
  return json;
}

}  // namespace

StepLog::StepLog(const StepLogOptions& options)
    : options_(options),
      metrics_(options.run_folder + "/metrics.jsonl", options.stage, options.first_step),
      events_(StrCat(options.run_folder, "/tensorboard/", options.stage), options.first_step),
      progress_(options.stage, "steps", ProgressOptions(options)) {}

void StepLog::Step(int64_t step, const StepRecord& record) {
  tokens_ += record.tokens;
  seconds_ += record.seconds;
  const double rate = record.seconds > 0 ? static_cast<double>(record.tokens) / record.seconds : 0;
  nlohmann::json json = {{"loss", record.loss},
                         {"tokens", record.tokens},
                         {"tokens_per_second", rate},
                         {"grad_norm", record.grad_norm},
                         {"learning_rate", record.learning_rate},
                         {"weight_decay", record.weight_decay},
                         {"loss_scale", record.loss_scale},
                         {"data_hash", record.data_hash}};
  if (record.skipped) json["skipped"] = true;
  if (record.validation_loss) json["validation_loss"] = *record.validation_loss;
  if (!record.health.is_null()) json["health"] = record.health;
  const nlohmann::json losses = LossesJson(record.losses.values);
  if (!losses.empty()) json["losses"] = losses;
  if (!record.losses.written_by.empty()) {
    json["generated"] = {{"by", record.losses.written_by},
                         {"tokens", record.losses.written_tokens},
                         {"hash", record.losses.written_hash}};
  }
  metrics_.Append(step, json);

  std::vector<std::pair<std::string, double>> named = {
      {"train/loss", record.loss},
      {"train/grad_norm", record.grad_norm},
      {"train/learning_rate", record.learning_rate},
      {"train/weight_decay", record.weight_decay},
      {"train/loss_scale", record.loss_scale},
      {"speed/tokens_per_second", rate}};
  if (record.validation_loss) named.emplace_back("validation/loss", *record.validation_loss);
  Flatten(losses, "losses", &named);
  if (!record.health.is_null()) Flatten(record.health, "health", &named);
  events_.Add(step, {named.begin(), named.end()});

  std::string note =
      StrCat("loss ", FormatFixed(record.loss, 4), " · ", FormatSi(TokensPerSecond()), " tokens/s");
  if (options_.gemm_flops > 0) {
    const double share = TokensPerSecond() * options_.flops_per_token / options_.gemm_flops;
    note += StrCat(" · ", FormatFixed(100 * share, 0), " % of GEMM peak");
  }
  progress_.Update(step, note);
}

void StepLog::Validation(int64_t step, double loss) {
  metrics_.Extend(step, {{"validation_loss", loss}});
  events_.Add(step, {{"validation/loss", loss}});
}

void StepLog::RollBackTo(int64_t step) {
  metrics_.RollBackTo(step);
  events_.RollBackTo(step);
}

void StepLog::Finish() { progress_.Finish(); }

}  // namespace tern::train
