// One task on one model: from questions (or a text) to what the model gave for each, and from that
// to metrics. The two steps are apart: metrics are a pure function of the results, which may come
// from a journal, so an evaluation that was killed and resumed ends with the same bits.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tasks/intervals.h"
#include "tasks/result_journal.h"
#include "tasks/sandbox.h"
#include "tasks/scorer.h"
#include "tasks/task_file.h"
#include "tasks/task_table.h"
#include "tasks/windows.h"

namespace tern::tasks {

struct EvalOptions {
  int64_t limit = 0;           // Questions or windows at most, the first ones; 0: all
  std::optional<int> fewshot;  // Examples; absent: the task's own number
  uint64_t seed = 1234;        // Of the bootstrap
  bool bos = false;            // Texts begin with BOS
  PerplexityProtocol perplexity;
  std::optional<SandboxOptions> sandbox;  // Absent: programs are not run, tasks of code are refused
  std::string model_sha256;  // Part of the journal's keys: of the model, and how it is run
  ResultJournal* journal = nullptr;
  std::function<void(int64_t done, int64_t all)> progress;
};

struct Metric {
  std::string name;
  double value = 0;
  Interval interval;
  std::string interval_kind;  // "Wilson", "bootstrap"
  int64_t count = 0;          // Questions, or scored tokens
};

struct TaskResult {
  TaskInfo info;
  std::string protocol;         // In words
  std::vector<Metric> metrics;  // The quoted one first
  std::vector<Metric> groups;   // Accuracy of each group, by name
  std::vector<ItemResult> items;
  std::vector<int32_t> answers;  // kChoice: what the model chose; else 1 right, 0 wrong
  std::vector<uint8_t> right;    // By the quoted metric; of no meaning for perplexity
  int64_t tokens_run = 0;        // By this process
  double seconds = 0;
  std::string runtime;  // What ran the model, for the report; filled by the caller
};

// Questions of a task and the examples that may come before them.
struct TaskData {
  TaskFile questions;
  std::optional<TaskFile> examples;
};

// The questions' results. Throws UsageError (more examples wanted than there are, code without a
// sandbox), InputError, StoppedError when a signal asked to stop (what is done is in the journal).
TaskResult RunTask(ModelScorer& scorer, const TaskInfo& info, const TaskData& data,
                   const EvalOptions& options);
// Perplexity of one text.
TaskResult RunPerplexity(ModelScorer& scorer, const std::string& text, const EvalOptions& options);

// Fills metrics, groups, answers and right from the items.
void FillMetrics(const TaskFile& questions, uint64_t seed, TaskResult* result);
// Of windows: values are the summed negative log-likelihood and the number of tokens.
void FillPerplexity(uint64_t seed, TaskResult* result);

}  // namespace tern::tasks
