// Round trips, what a reader refuses and how it says so, choosing the newest and the best,
// retention, leftovers.
#include "checkpoint/checkpoint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "tests/checkpoint/sample.h"
#include "tests/testing/temp_folder.h"

namespace tern::checkpoint {
namespace {

namespace fs = std::filesystem;
using testing::TempFolder;

std::vector<std::string> NamesIn(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

// The message of the error that opening `path` throws.
std::string RefusalOf(const std::string& path) {
  try {
    const CheckpointReader reader(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kInput);
    return error.what();
  }
  ADD_FAILURE() << path << " was not refused";
  return "";
}

void ReplaceIn(const std::string& path, const std::string& from, const std::string& to) {
  std::string text = ReadFile(path);
  const size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos);
  WriteFileAtomically(path, text.replace(at, from.size(), to));
}

TEST(CheckpointTest, FolderNamesSortByStep) {
  EXPECT_EQ(FolderName(600), "step-00000600");
  EXPECT_EQ(FolderName(0), "step-00000000");
  EXPECT_EQ(FolderName(123'456'789'012), "step-123456789012");
}

TEST(CheckpointTest, ComesBackExactlyFromFolderAndStateFile) {
  const TempFolder folder;
  const std::string path = WriteSample(folder.path(), 600, 3.5);
  EXPECT_EQ(path, folder / "step-00000600");
  EXPECT_EQ(NamesIn(folder.path()), std::vector<std::string>{"step-00000600"});
  EXPECT_EQ(NamesIn(path), (std::vector<std::string>{"manifest.json", "state.h5"}));
  for (const std::string& way : {path, path + "/", path + "/state.h5", path + "/."}) {
    const CheckpointReader reader(way);
    Sample(600).ExpectEqual(reader);
    EXPECT_EQ(reader.meta().metrics.at("validation_loss"), 3.5);
    EXPECT_EQ(reader.sha256(), Sha256OfFile(path + "/state.h5"));
  }
  EXPECT_EQ(CheckpointReader(path + "/state.h5").folder(), path);
}

TEST(CheckpointTest, ListsTensorsInNameOrder) {
  const TempFolder folder;
  const CheckpointReader reader(WriteSample(folder.path(), 1));
  ASSERT_EQ(reader.tensors().size(), 3u);
  EXPECT_EQ(reader.tensors()[0].name, "/counters");
  EXPECT_EQ(reader.tensors()[1].name, "/model/layers.0.attention.q");
  EXPECT_EQ(reader.tensors()[1].shape, (std::vector<int64_t>{37, 5}));
  EXPECT_EQ(reader.tensors()[1].size_bytes, 37 * 5 * 4);
  EXPECT_EQ(reader.Find("/model/none"), nullptr);
  EXPECT_EQ(reader.Find("/counters")->type, h5::Type::kI64);
}

// Sizes around the chunk of 1 MiB: a row is 20 bytes.
TEST(CheckpointTest, TensorsOfManySizes) {
  for (const int64_t rows : {1, 2, 52'428, 52'429, 104'858, 120'001}) {
    const TempFolder folder;
    const Sample sample(9, rows);
    sample.ExpectEqual(
        CheckpointReader(WriteCheckpoint(folder.path(), sample.Meta(), sample.Tensors())));
  }
}

TEST(CheckpointTest, StateMayBeLargerThanAnAttribute) {
  const TempFolder folder;
  CheckpointMeta meta;
  meta.kind = "import";
  meta.state["text"] = std::string(300'000, 'x');
  const CheckpointReader reader(WriteCheckpoint(folder.path(), meta, {}));
  EXPECT_EQ(reader.meta().state, meta.state);
  EXPECT_EQ(reader.meta().kind, "import");
  EXPECT_TRUE(reader.tensors().empty());
}

TEST(CheckpointTest, AMetricThatIsNotFiniteIsLeftOut) {
  const TempFolder folder;
  CheckpointMeta meta;
  meta.metrics = {{"validation_loss", std::nan("")}, {"other", 1.5}};
  const CheckpointReader reader(WriteCheckpoint(folder.path(), meta, {}));
  EXPECT_EQ(reader.meta().metrics, (std::map<std::string, double>{{"other", 1.5}}));
}

TEST(CheckpointTest, WritingAStepAgainReplacesIt) {
  const TempFolder folder;
  const Sample first(5, 3), second(5, 8);
  WriteCheckpoint(folder.path(), first.Meta(), first.Tensors());
  const std::string path = WriteCheckpoint(folder.path(), second.Meta(), second.Tensors());
  second.ExpectEqual(CheckpointReader(path));
  EXPECT_EQ(NamesIn(folder.path()), std::vector<std::string>{"step-00000005"});
}

TEST(CheckpointTest, ReadingSaysWhatDoesNotFit) {
  const TempFolder folder;
  const CheckpointReader reader(WriteSample(folder.path(), 1));
  std::vector<float> out(37 * 5);
  const std::string name = "/model/layers.0.attention.q";
  EXPECT_THROW(reader.Read("/model/none", h5::Type::kF32, {37, 5}, out.data()), FormatError);
  EXPECT_THROW(reader.Read(name, h5::Type::kI32, {37, 5}, out.data()), FormatError);
  try {
    reader.Read(name, h5::Type::kF32, {5, 37}, out.data());
    FAIL() << "no throw";
  } catch (const FormatError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("[37, 5]"), std::string::npos) << message;
    EXPECT_NE(message.find("[5, 37]"), std::string::npos) << message;
  }
}

TEST(CheckpointTest, RefusesWithTheReason) {
  const TempFolder folder;
  EXPECT_NE(RefusalOf(folder / "none").find("no checkpoint at"), std::string::npos);
  const auto fresh = [&] {
    fs::remove_all(folder / "step-00000001");
    return WriteSample(folder.path(), 1);
  };
  fs::remove(fresh() + "/manifest.json");
  EXPECT_NE(RefusalOf(folder / "step-00000001").find("never finished"), std::string::npos);
  fs::remove(fresh() + "/state.h5");
  EXPECT_NE(RefusalOf(folder / "step-00000001").find("state.h5 is missing"), std::string::npos);
  ReplaceIn(fresh() + "/manifest.json", "\"version\": 1", "\"version\": 2");
  EXPECT_NE(RefusalOf(folder / "step-00000001").find("version 2, this tern reads 1"),
            std::string::npos);
  ReplaceIn(fresh() + "/manifest.json", "\"step\": 1", "\"step\": 2");
  EXPECT_NE(RefusalOf(folder / "step-00000001").find("checksum"), std::string::npos);
  WriteFileAtomically(fresh() + "/manifest.json", std::string(2 << 20, ' '));
  EXPECT_NE(RefusalOf(folder / "step-00000001").find("at most"), std::string::npos);
  fs::rename(fresh(), folder / "step-00000002");
  EXPECT_NE(RefusalOf(folder / "step-00000002").find("folder named for step 2"), std::string::npos);
  fs::rename(folder / "step-00000002", folder / "kept-by-hand");  // Another name promises no step.
  Sample(1).ExpectEqual(CheckpointReader(folder / "kept-by-hand"));
}

TEST(CheckpointTest, NewestValidPassesOverDamageAndSaysSo) {
  const TempFolder folder;
  EXPECT_FALSE(FindNewestValid(folder / "none").path);
  EXPECT_FALSE(FindNewestValid(folder.path()).path);
  for (const int64_t step : {2, 9, 10, 100, 200}) WriteSample(folder.path(), step);
  Found found = FindNewestValid(folder.path());
  EXPECT_EQ(found.path, folder / "step-00000200");
  EXPECT_EQ(found.step, 200);
  EXPECT_TRUE(found.refused.empty());

  fs::resize_file(folder / "step-00000200/state.h5", 100);
  fs::remove(folder / "step-00000100/manifest.json");
  found = FindNewestValid(folder.path());
  EXPECT_EQ(found.path, folder / "step-00000010");
  Sample(10).ExpectEqual(CheckpointReader(*found.path));
  ASSERT_EQ(found.refused.size(), 2u);
  EXPECT_EQ(found.refused[0].path, folder / "step-00000200");
  EXPECT_NE(found.refused[0].reason.find("100 bytes"), std::string::npos)
      << found.refused[0].reason;
  EXPECT_EQ(found.refused[1].path, folder / "step-00000100");
}

TEST(CheckpointTest, OtherNamesAreNoCheckpoints) {
  const TempFolder folder;
  const std::string path = WriteSample(folder.path(), 3);
  for (const char* name : {"step-3", "step-0000000x", "step-000000005", ".tmp-step-00000009.1",
                           "step-00000007.old", "step-9999999999999999999", "best"}) {
    fs::copy(path, folder / name);
  }
  WriteFileAtomically(folder / "step-00000008", "a file");
  const Found found = FindNewestValid(folder.path());
  EXPECT_EQ(found.path, path);
  EXPECT_TRUE(found.refused.empty());
}

TEST(CheckpointTest, BestHasTheLowestMetricAndTiesGoToTheNewer) {
  const TempFolder folder;
  EXPECT_FALSE(FindBestValid(folder.path(), "validation_loss").path);
  WriteSample(folder.path(), 10, 3.0);
  WriteSample(folder.path(), 20, 2.0);
  WriteSample(folder.path(), 30, 2.0);
  WriteSample(folder.path(), 40, 2.5);
  WriteSample(folder.path(), 50);  // Without the metric.
  EXPECT_EQ(FindBestValid(folder.path(), "validation_loss").step, 30);
  EXPECT_FALSE(FindBestValid(folder.path(), "other").path);
  fs::resize_file(folder / "step-00000030/state.h5", 7);
  const Found found = FindBestValid(folder.path(), "validation_loss");
  EXPECT_EQ(found.step, 20);
  ASSERT_EQ(found.refused.size(), 1u);
  EXPECT_EQ(found.refused[0].path, folder / "step-00000030");
}

TEST(CheckpointTest, RetentionKeepsTheLastOnesAndTheBest) {
  const TempFolder folder;
  const double losses[] = {3.0, 1.0, 2.0, 4.0, 5.0};
  for (int64_t i = 0; i < 5; ++i) WriteSample(folder.path(), 10 * (i + 1), losses[i]);
  fs::remove(folder / "step-00000050/manifest.json");  // Refused: does not count, is not touched.
  EXPECT_EQ(ApplyRetention(folder.path(), {2, "validation_loss"}), std::vector<int64_t>{10});
  EXPECT_EQ(NamesIn(folder.path()), (std::vector<std::string>{"step-00000020", "step-00000030",
                                                              "step-00000040", "step-00000050"}));
  EXPECT_EQ(ApplyRetention(folder.path(), {1, ""}), (std::vector<int64_t>{30, 20}));
  EXPECT_EQ(ApplyRetention(folder.path(), {1, ""}), std::vector<int64_t>{});
  EXPECT_EQ(NamesIn(folder.path()), (std::vector<std::string>{"step-00000040", "step-00000050"}));
  EXPECT_THROW(ApplyRetention(folder.path(), {0, ""}), BugError);
}

TEST(CheckpointTest, LeftoversOfKilledRunsAreRemoved) {
  const TempFolder folder;
  WriteSample(folder.path(), 1);
  fs::create_directories(folder / ".tmp-step-00000002.77");
  WriteFileAtomically(folder / ".tmp-step-00000002.77/state.h5", "part");
  fs::create_directories(folder / ".old-step-00000000.77");
  fs::create_directories(folder / ".tmp-of-another-program");
  EXPECT_EQ(RemoveLeftovers(folder.path()), 2);
  EXPECT_EQ(NamesIn(folder.path()),
            (std::vector<std::string>{".tmp-of-another-program", "step-00000001"}));
  EXPECT_EQ(RemoveLeftovers(folder / "none"), 0);
}

TEST(CheckpointTest, WrongCallsAreBugs) {
  const TempFolder folder;
  const float value = 1;
  CheckpointMeta meta;
  meta.step = -1;
  EXPECT_THROW(WriteCheckpoint(folder.path(), meta, {}), BugError);
  meta.step = 1;
  const TensorView relative{"model/a", h5::Type::kF32, {1}, &value},
      twice{"/model/a", h5::Type::kF32, {1}, &value};
  EXPECT_THROW(WriteCheckpoint(folder.path(), meta, {relative}), BugError);
  EXPECT_THROW(WriteCheckpoint(folder.path(), meta, {twice, twice}), BugError);
  meta.state["text"] = "\xff";
  EXPECT_THROW(WriteCheckpoint(folder.path(), meta, {}), BugError);
  EXPECT_TRUE(NamesIn(folder.path()).empty());  // Nothing of a failed one stays.
}

}  // namespace
}  // namespace tern::checkpoint
