// metrics.jsonl: one JSON object a training step, for plots and for `tern report`
// (docs/formats/metrics.md). Invariant: a (stage, step) pair stands in the file at most once and
// steps of a stage rise, also when a run was killed after its last checkpoint: opening the log for
// a resumed run first drops the records after the resumed step, atomically.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "metrics/append_file.h"

namespace tern {

struct MetricsRecord {
  std::string stage;
  int64_t step = 0;
  nlohmann::json
      values;  // The whole object, "stage" and "step" included. A NaN or Inf is null in the file.
};

class MetricsLog {
 public:
  // Opens `path` for stage `stage`, of which steps up to `resume_step` are kept (0: a stage from
  // its beginning). Records of other stages are kept whole. Throws FormatError for a damaged file,
  // ResourceError when it cannot be written.
  MetricsLog(std::string path, std::string stage, int64_t resume_step);

  // Appends {"stage": ..., "step": step, values...}. REQUIRES: step is above every earlier one of
  // this log; values is an object without "stage" and "step".
  void Append(int64_t step, const nlohmann::json& values);

  // Adds values to the record of `step`, atomically; nothing when there is no such record. For what
  // was interrupted and is known only after a resume.
  void Extend(int64_t step, const nlohmann::json& values);

  // Drops the records of this stage after `step`, atomically: the run goes back to an earlier
  // checkpoint.
  void RollBackTo(int64_t step);

  // The records so far are on disk when this returns. Call before a checkpoint is written, so that
  // a resumed run finds every step up to it.
  void Sync();

 private:
  std::string path_, stage_;
  int64_t last_step_;
  std::optional<AppendFile> file_;
};

// Every record of the file, in file order; a missing file gives none, a torn last line is dropped.
// Throws FormatError with file and line for anything else that is not such a record.
std::vector<MetricsRecord> ReadMetrics(const std::string& path);

// (step, value) of the records of `stage` (empty: all) that hold the number `key`.
std::vector<std::pair<int64_t, double>> MetricsSeries(const std::vector<MetricsRecord>& records,
                                                      const std::string& stage,
                                                      const std::string& key);

}  // namespace tern
