// The table of finished runs: seeds of one name joined, hand-computed means and intervals.
#include "job/run_table.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "tests/testing/temp_folder.h"

namespace tern::job {
namespace {

// Folders of finished runs as the report stage leaves them.
class RunTableTest : public ::testing::Test {
 protected:
  std::string Finished(const std::string& name, int64_t seed, double loss, bool recovery = true) {
    const std::string folder = folder_ / (name + std::to_string(seed));
    std::filesystem::create_directories(folder);
    nlohmann::json eval = {{"loss", loss}};
    if (recovery) {
      eval["mean_kl"] = loss / 10;
      eval["recovered"] = 0.5;
    }
    const nlohmann::json report = {
        {"name", name},
        {"seed", seed},
        {"stages",
         {{{"id", "one"}, {"kind", "train"}, {"result", {{"steps", 2}, {"validation_loss", 9.0}}}},
          {{"id", "two"}, {"kind", "train"}, {"result", {{"steps", 1}, {"validation_loss", 8.0}}}},
          {{"id", "eval"}, {"kind", "eval"}, {"result", eval}}}}};
    WriteFileAtomically(folder + "/report.json", report.dump());
    WriteFileAtomically(folder + "/metrics.jsonl",
                        "{\"stage\":\"one\",\"step\":1,\"tokens\":3000,\"tokens_per_second\":100}\n"
                        "{\"stage\":\"one\",\"step\":2,\"tokens\":3000,\"tokens_per_second\":100,"
                        "\"validation_loss\":9.0}\n"
                        "{\"stage\":\"two\",\"step\":1,\"tokens\":3000,\"tokens_per_second\":50,"
                        "\"validation_loss\":8.0}\n");
    return folder;
  }

  testing::TempFolder folder_;
};

// Losses 3, 4, 5: mean 4, standard deviation 1, half-width 4.303 / sqrt(3) = 2.484. 9,000 tokens in
// 30 + 30 + 60 seconds.
TEST_F(RunTableTest, SeedsOfOneNameAreOneSetting) {
  const RunTable table = CompareRuns(
      {Finished("a", 1, 3), Finished("b", 1, 2, false), Finished("a", 2, 4), Finished("a", 3, 5)});
  EXPECT_NE(
      table.markdown.find("| a | 3 | 9.00 k | 2.0 | 4.0000 ± 2.4843 | 54.60 | 0.4000 ± 0.2484 | "
                          "50.0 ± 0.0 |\n| b | 1 | 9.00 k | 2.0 | 2.0000 | 7.39 |  |  |\n"),
      std::string::npos)
      << table.markdown;
  EXPECT_NE(table.curves_svg.find(">b</text>"), std::string::npos);
}

TEST_F(RunTableTest, WhatIsNoFinishedRunIsRefused) {
  EXPECT_THROW(CompareRuns({folder_ / "none"}), InputError);
  const std::string run = Finished("a", 1, 3);
  EXPECT_THROW(CompareRuns({run, run}), InputError);
}

}  // namespace
}  // namespace tern::job
