// See report.h.
#include "tasks/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/progress.h"

namespace tern::tasks {
namespace {

using nlohmann::ordered_json;

const char* KindName(TaskKind kind) {
  switch (kind) {
    case TaskKind::kPerplexity:
      return "perplexity";
    case TaskKind::kChoice:
      return "choice";
    case TaskKind::kContinuation:
      return "continuation";
    case TaskKind::kGenerate:
      return "generate";
    case TaskKind::kCode:
      return "code";
  }
  __builtin_unreachable();
}

ordered_json JsonOfMetric(const Metric& metric) {
  ordered_json json = {{"name", metric.name}, {"value", metric.value}};
  if (metric.interval_kind != "none")
    json["interval"] = {{"low", metric.interval.low},
                        {"high", metric.interval.high},
                        {"level", 0.95},
                        {"kind", metric.interval_kind}};
  json["count"] = metric.count;
  return json;
}

ordered_json JsonOfMetrics(const std::vector<Metric>& metrics) {
  ordered_json json = ordered_json::array();
  for (const Metric& metric : metrics) json.push_back(JsonOfMetric(metric));
  return json;
}

ordered_json JsonOfTasks(const std::vector<TaskResult>& results) {
  ordered_json json = ordered_json::array();
  for (const TaskResult& result : results) {
    ordered_json task = {{"task", result.info.name},
                         {"kind", KindName(result.info.kind)},
                         {"protocol", result.protocol},
                         {"runtime", result.runtime},
                         {"metrics", JsonOfMetrics(result.metrics)}};
    if (!result.groups.empty()) task["groups"] = JsonOfMetrics(result.groups);
    task["tokens_run"] = result.tokens_run;
    task["seconds"] = result.seconds;
    ordered_json items = ordered_json::array();
    for (size_t i = 0; i < result.items.size(); ++i) {
      ordered_json item = {{"values", result.items[i].values}};
      if (!result.items[i].text.empty()) item["text"] = result.items[i].text;
      if (i < result.right.size()) item["right"] = result.right[i] != 0;
      if (result.info.kind == TaskKind::kChoice) item["answer"] = result.answers[i];
      items.push_back(std::move(item));
    }
    task["items"] = std::move(items);
    json.push_back(std::move(task));
  }
  return json;
}

ordered_json JsonOfComparison(const Comparison& comparison) {
  ordered_json tasks = ordered_json::array();
  for (const TaskComparison& task : comparison.tasks) {
    ordered_json json = {{"task", task.task},
                         {"model", JsonOfMetric(task.model)},
                         {"reference", JsonOfMetric(task.reference)},
                         {"flips",
                          {{"changed", task.changed},
                           {"right_to_wrong", task.right_to_wrong},
                           {"wrong_to_right", task.wrong_to_right}}}};
    json["recovery_percent"] = task.recovery ? JsonOfMetric(*task.recovery) : ordered_json();
    tasks.push_back(std::move(json));
  }
  return {{"tasks", std::move(tasks)},
          {"mean_recovery_percent",
           comparison.mean_recovery ? JsonOfMetric(*comparison.mean_recovery) : ordered_json()}};
}

std::string Number(double value) {
  char text[32];
  const double size = std::fabs(value);
  if (size != 0 && (size < 1e-3 || size >= 1e6))
    std::snprintf(text, sizeof text, "%.3e", value);
  else
    std::snprintf(text, sizeof text, size < 10 ? "%.4f" : "%.3f", value);
  return text;
}

using Cells = std::vector<std::string>;

// Columns as wide as their widest cell; the first to the left, the others to the right.
std::string Aligned(const std::vector<Cells>& rows) {
  std::vector<size_t> widths;
  for (const Cells& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  std::string out;
  for (const Cells& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string pad(widths[c] - row[c].size(), ' ');
      line += (c > 0 ? "  " : "") + (c < 2 ? row[c] + pad : pad + row[c]);
    }
    out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return out;
}

std::string Range(const Metric& metric) {
  if (metric.interval_kind == "none") return "";
  return Number(metric.interval.low) + " .. " + Number(metric.interval.high);
}

void AddMetrics(const std::string& name, const std::vector<Metric>& metrics,
                std::vector<Cells>* rows) {
  for (const Metric& metric : metrics)
    rows->push_back({name, metric.name, Number(metric.value), Range(metric),
                     std::to_string(metric.count), metric.interval_kind});
}

std::string ResultsTable(const std::string& title, const std::vector<TaskResult>& results) {
  std::vector<Cells> rows = {{"task", "metric", "value", "95 % interval", "of", "by"}};
  for (const TaskResult& result : results) {
    AddMetrics(result.info.name, result.metrics, &rows);
    for (const Metric& group : result.groups) AddMetrics("  " + group.name, {group}, &rows);
  }
  for (size_t r = 1; r < rows.size(); ++r)
    if (rows[r][0].rfind("  ", 0) == 0) rows[r][1] = "";  // A group's name is the metric's
  std::string out = title + "\n" + Aligned(rows);
  for (const TaskResult& result : results) {
    out += result.info.name + ": " + result.protocol + "; run by " + result.runtime;
    if (result.tokens_run > 0 && result.seconds > 0)
      out += "; " + FormatSi(static_cast<double>(result.tokens_run) / result.seconds) + " tokens/s";
    out += "\n";
  }
  return out;
}

std::string ComparisonTable(const Comparison& comparison) {
  std::vector<Cells> rows = {{"task", "metric", "model", "reference", "changed", "right to wrong",
                              "wrong to right", "recovery %", "95 % interval"}};
  for (const TaskComparison& task : comparison.tasks) {
    rows.push_back({task.task, task.model.name, Number(task.model.value),
                    Number(task.reference.value), std::to_string(task.changed),
                    std::to_string(task.right_to_wrong), std::to_string(task.wrong_to_right),
                    task.recovery ? Number(task.recovery->value) : "-",
                    task.recovery ? Range(*task.recovery) : ""});
  }
  if (comparison.mean_recovery)
    rows.push_back({"mean", "", "", "", "", "", "", Number(comparison.mean_recovery->value),
                    Range(*comparison.mean_recovery)});
  return Aligned(rows);
}

}  // namespace

std::string TableOf(const Report& report) {
  std::string out;
  if (!report.results.empty()) out += ResultsTable(report.model, report.results);
  if (!report.reference_results.empty())
    out += "\n" + ResultsTable("reference: " + report.reference, report.reference_results);
  if (report.comparison)
    out += "\n" + report.model + " against " + report.reference + "\n" +
           ComparisonTable(*report.comparison);
  if (report.divergence) {
    std::vector<Cells> rows = {{"text", "metric", "value", "95 % interval", "of", "by"}};
    AddMetrics("", report.divergence->metrics, &rows);
    out += (out.empty() ? "" : "\n") + report.model + " against " + report.reference + "\n" +
           Aligned(rows) + report.divergence->protocol + "; run by " + report.divergence->runtime +
           ", the reference by " + report.divergence->reference_runtime + "\n";
  }
  return out;
}

std::string JsonOf(const Report& report) {
  ordered_json json = {{"model", report.model}, {"model_sha256", report.model_sha256}};
  if (!report.reference.empty()) {
    json["reference"] = report.reference;
    json["reference_sha256"] = report.reference_sha256;
  }
  if (!report.activations.empty()) {
    json["activations"] = report.activations;
    json["cache"] = report.cache;
  }
  json["seed"] = report.seed;
  json["resamples"] = kResamples;
  json["tasks"] = JsonOfTasks(report.results);
  if (!report.reference_results.empty())
    json["reference_tasks"] = JsonOfTasks(report.reference_results);
  if (report.comparison) json["comparison"] = JsonOfComparison(*report.comparison);
  if (report.divergence)
    json["divergence"] = {{"protocol", report.divergence->protocol},
                          {"runtime", report.divergence->runtime},
                          {"reference_runtime", report.divergence->reference_runtime},
                          {"tokens", report.divergence->tokens},
                          {"seconds", report.divergence->seconds},
                          {"metrics", JsonOfMetrics(report.divergence->metrics)}};
  return json.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace tern::tasks
