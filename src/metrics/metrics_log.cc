// See metrics_log.h.
#include "metrics/metrics_log.h"

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "metrics/journal.h"

namespace tern {
namespace {

std::string RecordLine(const std::string& stage, int64_t step, const nlohmann::json& values) {
  nlohmann::ordered_json line = {{"stage", stage}, {"step", step}};
  for (const auto& [key, value] : values.items()) line[key] = value;
  // A NaN becomes null; invalid UTF-8 in a text is replaced.
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace

MetricsLog::MetricsLog(std::string path, std::string stage, int64_t resume_step)
    : path_(std::move(path)), stage_(std::move(stage)), last_step_(resume_step) {
  TERN_CHECK(resume_step >= 0, "resume_step ", resume_step);
  RollBackTo(resume_step);
}

void MetricsLog::RollBackTo(int64_t step) {
  file_.reset();
  if (std::filesystem::exists(path_)) {
    std::string kept;
    for (const MetricsRecord& record : ReadMetrics(path_)) {
      if (record.stage == stage_ && record.step > step) continue;
      kept += RecordLine(record.stage, record.step, record.values);
    }
    if (kept != ReadFile(path_)) WriteFileAtomically(path_, kept);
  }
  last_step_ = step;
  file_.emplace(path_, AppendFile::Mode::kOpenOrCreate);
}

void MetricsLog::Extend(int64_t step, const nlohmann::json& values) {
  file_.reset();
  std::string lines;
  for (MetricsRecord& record : ReadMetrics(path_)) {
    if (record.stage == stage_ && record.step == step) record.values.update(values);
    lines += RecordLine(record.stage, record.step, record.values);
  }
  WriteFileAtomically(path_, lines);
  file_.emplace(path_, AppendFile::Mode::kOpenOrCreate);
}

void MetricsLog::Append(int64_t step, const nlohmann::json& values) {
  TERN_CHECK(step > last_step_, "step ", step, " after step ", last_step_, " in ", path_);
  TERN_CHECK(values.is_object() && !values.contains("stage") && !values.contains("step"),
             "values of step ", step);
  file_->Write(RecordLine(stage_, step, values));
  last_step_ = step;
}

void MetricsLog::Sync() { file_->Sync(); }

std::vector<MetricsRecord> ReadMetrics(const std::string& path) {
  std::vector<MetricsRecord> records;
  int64_t number = 0;
  for (nlohmann::json& line : ReadJsonLines(path).records) {
    ++number;
    TERN_CHECK_FORMAT(
        line.contains("stage") && line["stage"].is_string() && line.contains("step") &&
            line["step"].is_number_integer(),
        path, ":", number, ": want \"stage\" (a string) and \"step\" (an integer), found ",
        line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 80));
    MetricsRecord record{line["stage"].get<std::string>(), line["step"].get<int64_t>(), {}};
    record.values = std::move(line);
    records.push_back(std::move(record));
  }
  return records;
}

std::vector<std::pair<int64_t, double>> MetricsSeries(const std::vector<MetricsRecord>& records,
                                                      const std::string& stage,
                                                      const std::string& key) {
  std::vector<std::pair<int64_t, double>> series;
  for (const MetricsRecord& record : records) {
    if (!stage.empty() && record.stage != stage) continue;
    const auto value = record.values.find(key);
    if (value != record.values.end() && value->is_number())
      series.emplace_back(record.step, value->get<double>());
  }
  return series;
}

}  // namespace tern
