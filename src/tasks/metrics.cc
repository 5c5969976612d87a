// From results of questions to metrics (evaluate.h): accuracies with Wilson's interval, everything
// else with the bootstrap over questions or windows.
#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "tasks/answers.h"
#include "tasks/evaluate.h"

namespace tern::tasks {
namespace {

Metric Share(const std::string& name, const std::vector<uint8_t>& right) {
  const auto count = static_cast<int64_t>(right.size());
  const int64_t hits = std::count(right.begin(), right.end(), 1);
  return {name, count ? static_cast<double>(hits) / static_cast<double>(count) : 0.0,
          Wilson(hits, count), "Wilson", count};
}

// Of equal values the first, as numpy.argmax.
int32_t ArgMax(const std::vector<double>& values) {
  return static_cast<int32_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

double Characters(const std::string& utf8) {
  return static_cast<double>(std::count_if(utf8.begin(), utf8.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

// What the model chooses when log-likelihoods are divided by the length of the choice.
int32_t Choose(const TaskItem& item, const ItemResult& result, const std::string& metric) {
  std::vector<double> values;
  for (size_t c = 0; c < item.num_choices(); ++c) {
    // Partial evaluation has one continuation; its choices are the contexts.
    const std::string& text = item.contexts.size() > 1 ? item.contexts[c] : item.choices[c];
    const double length = metric == "acc"        ? 1.0
                          : metric == "acc_norm" ? Characters(text)
                                                 : static_cast<double>(text.size());
    values.push_back(result.values[c] / length);
  }
  return ArgMax(values);
}

void AddGroups(const TaskFile& questions, const std::vector<uint8_t>& right, uint64_t seed,
               TaskResult* result) {
  std::map<std::string, std::vector<uint8_t>> groups;
  for (size_t i = 0; i < right.size(); ++i) groups[questions.items[i].group].push_back(right[i]);
  if (groups.size() < 2) return;
  std::map<std::string, size_t> number;
  std::vector<size_t> of;
  for (const auto& [name, values] : groups) {
    number.emplace(name, number.size());
    result->groups.push_back(Share(name, values));
  }
  for (size_t i = 0; i < right.size(); ++i) of.push_back(number[questions.items[i].group]);
  // Mean of the groups' accuracies; a draw without questions of a group leaves it out.
  const auto macro = [&](std::span<const int32_t> times) {
    std::vector<double> hits(number.size()), all(number.size());
    for (size_t i = 0; i < of.size(); ++i) {
      all[of[i]] += times[i];
      hits[of[i]] += times[i] * right[i];
    }
    double sum = 0, count = 0;
    for (size_t g = 0; g < all.size(); ++g) {
      sum += all[g] > 0 ? hits[g] / all[g] : 0;
      count += all[g] > 0 ? 1 : 0;
    }
    return sum / count;
  };
  const auto units = static_cast<int64_t>(right.size());
  const std::vector<int32_t> once(right.size(), 1);
  result->metrics.push_back(
      {"macro_acc", macro(once), Bootstrap(units, seed, macro), "bootstrap", units});
}

void FillChoice(const TaskFile& questions, uint64_t seed, TaskResult* result) {
  for (const char* metric : {"acc", "acc_norm", "acc_bytes"}) {
    std::vector<uint8_t> right;
    std::vector<int32_t> answers;
    for (size_t i = 0; i < result->items.size(); ++i) {
      const TaskItem& item = questions.items[i];
      TERN_CHECK(result->items[i].values.size() == 2 * item.num_choices(), "values of question ",
                 i);
      answers.push_back(Choose(item, result->items[i], metric));
      right.push_back(answers.back() == item.gold);
    }
    const bool quoted = metric == std::string_view(result->info.metric);
    result->metrics.insert(quoted ? result->metrics.begin() : result->metrics.end(),
                           Share(metric, right));
    if (!quoted) continue;
    result->answers = answers;
    result->right = right;
  }
  AddGroups(questions, result->right, seed, result);
}

void FillContinuation(uint64_t seed, TaskResult* result) {
  for (const ItemResult& item : result->items) {
    TERN_CHECK(item.values.size() == 2, "values of a continuation");
    result->right.push_back(item.values[1] == 1);
  }
  result->metrics.push_back(Share("acc", result->right));
  // exp of the mean over questions, whatever their number of tokens, as lm-evaluation-harness.
  const auto perplexity = [&](std::span<const int32_t> times) {
    double sum = 0, count = 0;
    for (size_t i = 0; i < times.size(); ++i) {
      sum += times[i] * result->items[i].values[0];
      count += times[i];
    }
    return std::exp(-sum / count);
  };
  const auto units = static_cast<int64_t>(result->items.size());
  const std::vector<int32_t> once(result->items.size(), 1);
  result->metrics.push_back(
      {"perplexity", perplexity(once), Bootstrap(units, seed, perplexity), "bootstrap", units});
}

void FillGenerate(const TaskFile& questions, TaskResult* result) {
  std::vector<uint8_t> strict, flexible;
  for (size_t i = 0; i < result->items.size(); ++i) {
    const std::string& text = result->items[i].text;
    const std::string& answer = questions.items[i].answer;
    if (!result->info.numbers) {
      strict.push_back(Trimmed(text) == Trimmed(answer));
      continue;
    }
    const std::string want = NormalizedAnswer(answer);
    strict.push_back(NormalizedAnswer(StrictAnswer(text)) == want);
    flexible.push_back(NormalizedAnswer(FlexibleAnswer(text)) == want);
  }
  result->metrics.push_back(Share(result->info.metric, strict));
  if (result->info.numbers) result->metrics.push_back(Share("flexible_extract", flexible));
  result->right = std::move(strict);
}

}  // namespace

void FillMetrics(const TaskFile& questions, uint64_t seed, TaskResult* result) {
  switch (result->info.kind) {
    case TaskKind::kChoice:
      return FillChoice(questions, seed, result);
    case TaskKind::kContinuation:
      FillContinuation(seed, result);
      break;
    case TaskKind::kGenerate:
      FillGenerate(questions, result);
      break;
    case TaskKind::kCode:
      for (const ItemResult& item : result->items) {
        TERN_CHECK(item.values.size() == 1, "values of a program");
        result->right.push_back(item.values[0] == 1);
      }
      result->metrics.push_back(Share("pass@1", result->right));
      break;
    case TaskKind::kPerplexity:
      TERN_CHECK(false, "a text is no question");
  }
  result->answers.assign(result->right.begin(), result->right.end());
}

void FillPerplexity(uint64_t seed, TaskResult* result) {
  const auto loss = [&](std::span<const int32_t> times) {
    double sum = 0, count = 0;
    for (size_t i = 0; i < times.size(); ++i) {
      TERN_CHECK(result->items[i].values.size() == 2, "values of a window");
      sum += times[i] * result->items[i].values[0];
      count += times[i] * result->items[i].values[1];
    }
    return sum / count;
  };
  const auto units = static_cast<int64_t>(result->items.size());
  const std::vector<int32_t> once(result->items.size(), 1);
  const double mean = loss(once);
  const Interval interval = Bootstrap(units, seed, loss);
  int64_t tokens = 0;
  for (const ItemResult& item : result->items) tokens += static_cast<int64_t>(item.values[1]);
  result->metrics.push_back({"perplexity",
                             std::exp(mean),
                             {std::exp(interval.low), std::exp(interval.high)},
                             "bootstrap",
                             tokens});
  result->metrics.push_back({"loss", mean, interval, "bootstrap", tokens});
}

}  // namespace tern::tasks
