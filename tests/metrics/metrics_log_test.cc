// metrics.jsonl: each step of a stage once, whenever a run was killed and from whichever checkpoint
// it goes on.
#include "metrics/metrics_log.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "tests/testing/temp_folder.h"

namespace tern {
namespace {

using testing::TempFolder;

std::vector<int64_t> StepsOf(const std::string& path, const std::string& stage) {
  std::vector<int64_t> steps;
  for (const MetricsRecord& record : ReadMetrics(path)) {
    if (record.stage == stage) steps.push_back(record.step);
  }
  return steps;
}

std::vector<int64_t> OneTo(int64_t last) {
  std::vector<int64_t> steps;
  for (int64_t step = 1; step <= last; ++step) steps.push_back(step);
  return steps;
}

void AppendSteps(MetricsLog* log, int64_t first, int64_t last) {
  for (int64_t step = first; step <= last; ++step)
    log->Append(step, {{"loss", 1.0 / static_cast<double>(step)}});
}

TEST(MetricsLogTest, LineHasStageAndStepFirstAndExactNumbers) {
  const TempFolder folder;
  MetricsLog log(folder / "m", "train", 0);
  log.Append(1, {{"loss", 0.1}, {"tokens", 9'007'199'254'740'993}, {"grad_norm", std::nan("")}});
  log.Sync();
  EXPECT_EQ(ReadFile(folder / "m"),
            "{\"stage\":\"train\",\"step\":1,\"grad_norm\":null,\"loss\":0.1,\"tokens\":"
            "9007199254740993}\n");
}

TEST(MetricsLogTest, ResumingDropsTheStepsAfterTheCheckpoint) {
  for (const int64_t checkpoint : {0, 1, 4, 9, 10, 20}) {
    const TempFolder folder;
    const std::string path = folder / "m";
    {
      MetricsLog log(path, "train", 0);
      AppendSteps(&log, 1, 10);
    }
    AppendLine(path, "{\"stage\":\"train\",\"st");
    WriteFileAtomically(
        path, ReadFile(path).substr(0, ReadFile(path).size() - 1));  // Torn: without its newline.
    const int64_t kept = std::min<int64_t>(checkpoint, 10);
    {
      MetricsLog log(path, "train", checkpoint);
      EXPECT_EQ(StepsOf(path, "train"), OneTo(kept));
      if (checkpoint <= 10) AppendSteps(&log, checkpoint + 1, 12);
    }
    if (checkpoint <= 10) {
      EXPECT_EQ(StepsOf(path, "train"), OneTo(12)) << checkpoint;
    }
  }
}

TEST(MetricsLogTest, OtherStagesAreKept) {
  const TempFolder folder;
  const std::string path = folder / "m";
  {
    MetricsLog first(path, "warm", 0);
    AppendSteps(&first, 1, 5);
  }
  {
    MetricsLog second(path, "main", 0);
    AppendSteps(&second, 1, 5);
  }
  MetricsLog again(path, "main", 2);
  AppendSteps(&again, 3, 3);
  EXPECT_EQ(StepsOf(path, "warm"), OneTo(5));
  EXPECT_EQ(StepsOf(path, "main"), OneTo(3));
}

TEST(MetricsLogTest, RollsBackWhileOpen) {
  const TempFolder folder;
  MetricsLog log(folder / "m", "train", 0);
  AppendSteps(&log, 1, 8);
  log.RollBackTo(5);
  AppendSteps(&log, 6, 7);
  EXPECT_EQ(StepsOf(folder / "m", "train"), OneTo(7));
}

TEST(MetricsLogTest, ExtendsOneRecordAndGoesOn) {
  const TempFolder folder;
  MetricsLog whole(folder / "whole", "train", 0), extended(folder / "extended", "train", 0);
  for (MetricsLog* log : {&whole, &extended}) AppendSteps(log, 1, 2);
  whole.Append(3, {{"loss", 0.5}, {"validation_loss", 0.25}});
  extended.Append(3, {{"loss", 0.5}});
  extended.Extend(3, {{"validation_loss", 0.25}});
  extended.Extend(9, {{"validation_loss", 0.25}});  // No such step: nothing to add to
  for (MetricsLog* log : {&whole, &extended}) AppendSteps(log, 4, 5);
  EXPECT_EQ(ReadFile(folder / "extended"), ReadFile(folder / "whole"));
}

TEST(MetricsLogTest, AFileThatNeedsNoChangeIsNotRewritten) {
  const TempFolder folder;
  const std::string path = folder / "m";
  {
    MetricsLog log(path, "train", 0);
    log.Append(1, {{"loss", 0.1},
                   {"b", 1e300},
                   {"a", {1, 2}},
                   {"n", std::numeric_limits<double>::infinity()}});
  }
  const MappedFile before(path);  // Holds the old file's inode.
  MetricsLog log(path, "train", 1);
  log.Append(2, {{"loss", 0.2}});
  EXPECT_EQ(MappedFile(path).bytes().size() > before.bytes().size(), true);
  EXPECT_EQ(
      ReadFile(path).substr(0, before.bytes().size()),
      std::string(reinterpret_cast<const char*>(before.bytes().data()), before.bytes().size()));
}

TEST(MetricsLogTest, StepsMustRise) {
  const TempFolder folder;
  MetricsLog log(folder / "m", "train", 3);
  EXPECT_THROW(log.Append(3, {{"loss", 1}}), BugError);
  log.Append(4, {{"loss", 1}});
  EXPECT_THROW(log.Append(4, {{"loss", 1}}), BugError);
  EXPECT_THROW(log.Append(5, {{"step", 1}}), BugError);
}

TEST(MetricsLogTest, ReadingNamesARecordWithoutStepOrStage) {
  const TempFolder folder;
  for (const char* bad : {"{\"step\":1}", "{\"stage\":\"a\"}", "{\"stage\":\"a\",\"step\":1.5}",
                          "{\"stage\":1,\"step\":1}", "{}"}) {
    WriteFileAtomically(folder / "m", StrCat("{\"stage\":\"a\",\"step\":1}\n", bad, "\n"));
    try {
      ReadMetrics(folder / "m");
      FAIL() << bad;
    } catch (const FormatError& error) {
      EXPECT_NE(std::string(error.what()).find("m:2:"), std::string::npos) << error.what();
    }
  }
}

TEST(MetricsLogTest, SeriesSkipsOtherStagesAndMissingOrNullValues) {
  const TempFolder folder;
  WriteFileAtomically(
      folder / "m",
      "{\"stage\":\"a\",\"step\":1,\"loss\":3}\n{\"stage\":\"a\",\"step\":2}\n"
      "{\"stage\":\"a\",\"step\":3,\"loss\":null}\n{\"stage\":\"b\",\"step\":1,\"loss\":2.5}\n");
  const auto records = ReadMetrics(folder / "m");
  using Series = std::vector<std::pair<int64_t, double>>;
  EXPECT_EQ(MetricsSeries(records, "a", "loss"), (Series{{1, 3.0}}));
  EXPECT_EQ(MetricsSeries(records, "", "loss"), (Series{{1, 3.0}, {1, 2.5}}));
  EXPECT_TRUE(MetricsSeries(records, "a", "none").empty());
}

}  // namespace
}  // namespace tern
