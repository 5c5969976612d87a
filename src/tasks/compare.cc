// See compare.h. The divergence on text is in divergence.cc.
#include "tasks/compare.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/random.h"

namespace tern::tasks {
namespace {

// 100 * model / reference of the questions as often as they were drawn; NaN: the reference has 0.
double Recovery(const TaskResult& model, const TaskResult& reference,
                std::span<const int32_t> times) {
  double ours = 0, theirs = 0, tokens = 0;
  const bool perplexity = model.info.kind == TaskKind::kPerplexity;
  for (size_t i = 0; i < times.size(); ++i) {
    if (perplexity) {
      ours += times[i] * model.items[i].values[0];
      theirs += times[i] * reference.items[i].values[0];
      tokens += times[i] * model.items[i].values[1];
    } else {
      ours += times[i] * model.right[i];
      theirs += times[i] * reference.right[i];
    }
  }
  if (perplexity) return 100 * std::exp((theirs - ours) / tokens);
  return theirs > 0 ? 100 * ours / theirs : std::nan("");
}

// Recoveries of kResamples draws of a task's questions.
std::vector<double> Draws(const TaskResult& model, const TaskResult& reference, uint64_t seed) {
  std::vector<double> draws;
  Bootstrap(static_cast<int64_t>(model.items.size()), seed, [&](std::span<const int32_t> times) {
    draws.push_back(Recovery(model, reference, times));
    return 0.0;
  });
  return draws;
}

Interval IntervalOf(std::vector<double> draws) {
  std::erase_if(draws, [](double value) { return std::isnan(value); });
  if (draws.empty()) return {std::nan(""), std::nan("")};
  std::sort(draws.begin(), draws.end());
  return {Percentile(draws, 2.5), Percentile(draws, 97.5)};
}

}  // namespace

Comparison Compare(const std::vector<TaskResult>& model, const std::vector<TaskResult>& reference,
                   uint64_t seed) {
  TERN_CHECK(model.size() == reference.size(), model.size(), " tasks and ", reference.size());
  Comparison comparison;
  std::vector<double> sums(static_cast<size_t>(kResamples), 0.0);
  double sum = 0;
  int64_t with_recovery = 0;
  for (size_t t = 0; t < model.size(); ++t) {
    const TaskResult &ours = model[t], &theirs = reference[t];
    TERN_CHECK(ours.items.size() == theirs.items.size(), "questions of ", ours.info.name);
    TaskComparison task{ours.info.name, ours.metrics[0], theirs.metrics[0], 0, 0, 0, {}};
    for (size_t i = 0; i < ours.right.size(); ++i) {
      // Of generated answers another wrong text is another answer, too.
      const bool text = ours.info.kind == TaskKind::kGenerate || ours.info.kind == TaskKind::kCode;
      task.changed +=
          text ? ours.items[i].text != theirs.items[i].text : ours.answers[i] != theirs.answers[i];
      task.right_to_wrong += theirs.right[i] && !ours.right[i];
      task.wrong_to_right += !theirs.right[i] && ours.right[i];
    }
    const std::vector<int32_t> once(ours.items.size(), 1);
    const double value = Recovery(ours, theirs, once);
    if (!std::isnan(value)) {
      // Tasks are independent of one another: each has its own draws.
      const std::vector<double> draws =
          Draws(ours, theirs, RandomStream(seed, ours.info.name).At(0));
      task.recovery = Metric{"recovery", value, IntervalOf(draws), "bootstrap",
                             static_cast<int64_t>(ours.items.size())};
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += draws[i];
      sum += value;
      ++with_recovery;
    }
    comparison.tasks.push_back(std::move(task));
  }
  if (with_recovery == 0) return comparison;
  const auto count = static_cast<double>(with_recovery);
  for (double& value : sums) value /= count;
  comparison.mean_recovery =
      Metric{"mean_recovery", sum / count, IntervalOf(sums), "bootstrap", with_recovery};
  return comparison;
}

}  // namespace tern::tasks
