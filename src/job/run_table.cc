// See run_table.h.
#include "job/run_table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "metrics/line_plot.h"
#include "metrics/metrics_log.h"

namespace tern::job {
namespace {

// Student's t at 97.5 % for 1, 2, ... degrees of freedom (NIST/SEMATECH e-Handbook, 1.3.6.7.2).
constexpr std::array kStudentT = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262};
constexpr double kNormal = 1.960;

struct Run {
  std::string name;
  int64_t seed = 0, tokens = 0;
  double seconds = 0;                             // Of training steps
  std::map<std::string, double> numbers;          // loss, mean_kl, recovered: of the last eval
  std::vector<std::pair<int64_t, double>> curve;  // (step since the start, validation loss)
};

void AddTraining(const std::vector<MetricsRecord>& records, const std::string& stage,
                 int64_t* steps, Run* run) {
  for (const MetricsRecord& record : records) {
    if (record.stage != stage) continue;
    const auto tokens = record.values.value("tokens", int64_t{0});
    const double speed = record.values.value("tokens_per_second", 0.0);
    run->tokens += tokens;
    if (speed > 0) run->seconds += static_cast<double>(tokens) / speed;
  }
  for (const auto& [step, loss] : MetricsSeries(records, stage, "validation_loss"))
    run->curve.emplace_back(*steps + step, loss);
}

Run ReadRun(const std::string& folder) {
  const std::string path = folder + "/report.json";
  TERN_CHECK_INPUT(std::filesystem::exists(path), folder,
                   " is no run with a report; want the folder of a run that ended with a report "
                   "stage");
  const nlohmann::json report = nlohmann::json::parse(ReadFile(path));
  const std::vector<MetricsRecord> records = ReadMetrics(folder + "/metrics.jsonl");
  Run run;
  run.name = report.at("name").get<std::string>();
  run.seed = report.at("seed").get<int64_t>();
  int64_t steps = 0;
  for (const nlohmann::json& stage : report.at("stages")) {
    const nlohmann::json& result = stage.at("result");
    if (stage.at("kind") == "train") {
      AddTraining(records, stage.at("id").get<std::string>(), &steps, &run);
      run.numbers["loss"] = result.at("validation_loss").get<double>();
      steps += result.at("steps").get<int64_t>();
    } else if (stage.at("kind") == "eval") {
      run.numbers["loss"] = result.at("loss").get<double>();
      for (const char* key : {"mean_kl", "recovered"}) {
        if (result.contains(key)) run.numbers[key] = result[key].get<double>();
      }
    }
  }
  TERN_CHECK_INPUT(run.numbers.contains("loss"), folder,
                   " has no training and no eval stage; want a run with a loss");
  return run;
}

struct Setting {
  std::string name;
  std::vector<Run> runs;
};

std::vector<Setting> ReadSettings(const std::vector<std::string>& folders) {
  std::vector<Setting> settings;
  for (const std::string& folder : folders) {
    Run run = ReadRun(folder);
    auto same = std::find_if(settings.begin(), settings.end(),
                             [&](const Setting& s) { return s.name == run.name; });
    if (same == settings.end()) same = settings.insert(settings.end(), Setting{run.name, {}});
    for (const Run& other : same->runs) {
      TERN_CHECK_INPUT(other.seed != run.seed, folder, ": there are two runs of ", run.name,
                       " with seed ", run.seed, "; want one of each");
    }
    same->runs.push_back(std::move(run));
  }
  return settings;
}

// "1.234 ± 0.012": mean and half-width of the interval at 95 %; of one run its value; "" when a run
// lacks the number.
std::string MeanOf(const Setting& setting, const std::string& key, double factor, int digits) {
  std::vector<double> values;
  for (const Run& run : setting.runs) {
    const auto found = run.numbers.find(key);
    if (found == run.numbers.end()) return "";
    values.push_back(factor * found->second);
  }
  const auto n = static_cast<double>(values.size());
  double mean = 0, squares = 0;
  for (const double value : values) mean += value / n;
  if (values.size() == 1) return FormatFixed(mean, digits);
  for (const double value : values) squares += (value - mean) * (value - mean);
  const size_t freedom = values.size() - 1;
  const double t = freedom <= kStudentT.size() ? kStudentT[freedom - 1] : kNormal;
  return StrCat(FormatFixed(mean, digits), " ± ",
                FormatFixed(t * std::sqrt(squares / static_cast<double>(freedom) / n), digits));
}

std::string Row(const Setting& setting) {
  double loss = 0, seconds = 0, tokens = 0;
  const auto n = static_cast<double>(setting.runs.size());
  for (const Run& run : setting.runs) {
    loss += run.numbers.at("loss") / n;
    seconds += run.seconds / n;
    tokens += static_cast<double>(run.tokens) / n;
  }
  return StrCat("| ", setting.name, " | ", setting.runs.size(), " | ", FormatSi(tokens), " | ",
                FormatFixed(seconds / 60, 1), " | ", MeanOf(setting, "loss", 1, 4), " | ",
                FormatFixed(std::exp(loss), 2), " | ", MeanOf(setting, "mean_kl", 1, 4), " | ",
                MeanOf(setting, "recovered", 100, 1), " |\n");
}

// The mean over the seeds at steps where all of them were evaluated.
Curve MeanCurve(const Setting& setting) {
  std::map<int64_t, std::pair<double, size_t>> sums;
  for (const Run& run : setting.runs) {
    for (const auto& [step, loss] : run.curve) {
      sums[step].first += loss;
      ++sums[step].second;
    }
  }
  Curve curve{setting.name, {}, false};
  for (const auto& [step, sum] : sums) {
    if (sum.second == setting.runs.size())
      curve.points.emplace_back(step, sum.first / static_cast<double>(sum.second));
  }
  curve.dotted = curve.points.size() == 1;
  return curve;
}

}  // namespace

RunTable CompareRuns(const std::vector<std::string>& folders) {
  const std::vector<Setting> settings = ReadSettings(folders);
  RunTable table;
  table.markdown =
      "| setting | seeds | tokens | minutes of training | validation loss, nats a token | "
      "perplexity | KL to the teacher | loss won back, % |\n"
      "| --- | --- | --- | --- | --- | --- | --- | --- |\n";
  std::vector<Curve> curves;
  for (const Setting& setting : settings) {
    table.markdown += Row(setting);
    if (Curve curve = MeanCurve(setting); !curve.points.empty()) curves.push_back(std::move(curve));
  }
  if (!curves.empty())
    table.curves_svg = LinePlot(curves, "optimizer steps", "validation loss, nats a token");
  return table;
}

}  // namespace tern::job
