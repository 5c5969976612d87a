// A model against a reference (usually what it was quantized from), paired: the same tokens, the
// same questions. Accuracy alone hides answers that change in both directions (Dutta et al.,
// "Accuracy is Not All You Need", arXiv 2407.09141), so flips are counted, and on text the
// divergence KL(reference || model) of each next-token distribution.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tasks/evaluate.h"

namespace tern::tasks {

struct Divergence {
  std::string protocol;
  // In nats a token: kl_mean, kl_p99, kl_max (without an interval); top1_agreement; perplexity and
  // reference_perplexity; recovery: 100 * reference perplexity / perplexity.
  std::vector<Metric> metrics;
  int64_t tokens = 0;
  double seconds = 0;
  std::string runtime, reference_runtime;  // As TaskResult::runtime
};

// Throws UsageError when the models do not have the same vocabulary, and as RunPerplexity.
Divergence RunDivergence(ModelScorer& model, ModelScorer& reference, const std::string& text,
                         const EvalOptions& options);

struct TaskComparison {
  std::string task;
  Metric model, reference;  // The quoted ones
  // Questions with another answer; with kChoice these may be wrong in both. Not of perplexity.
  int64_t changed = 0, right_to_wrong = 0, wrong_to_right = 0;
  // 100 * model / reference (of perplexity: reference / model); absent when the reference has 0.
  std::optional<Metric> recovery;
};

struct Comparison {
  std::vector<TaskComparison> tasks;
  std::optional<Metric> mean_recovery;  // Over the tasks that have one
};

// REQUIRES: the same tasks in the same order, with equal questions.
Comparison Compare(const std::vector<TaskResult>& model, const std::vector<TaskResult>& reference,
                   uint64_t seed);

}  // namespace tern::tasks
