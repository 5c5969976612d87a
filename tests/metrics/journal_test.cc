// The journal after crashes: a torn last line is cut, everything before it stays, and damage
// elsewhere is named.
#include "metrics/journal.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "tests/testing/temp_folder.h"

namespace tern {
namespace {

using testing::TempFolder;

WallClock FixedClock(double seconds) {
  return [seconds] { return seconds; };
}

TEST(JournalTest, UtcHasMilliseconds) {
  EXPECT_EQ(FormatUtc(0), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(FormatUtc(951'782'399.9996),
            "2000-02-28T23:59:59.999Z");  // Rounded down, never into the next day.
  EXPECT_EQ(FormatUtc(951'782'400.25), "2000-02-29T00:00:00.250Z");
  EXPECT_EQ(FormatUtc(1'795'510'300.5), "2026-11-24T08:51:40.500Z");
  EXPECT_EQ(FormatUtc(-0.5), "1969-12-31T23:59:59.500Z");
}

TEST(JournalTest, LinesHaveTimeAndEventFirst) {
  const TempFolder folder;
  Journal journal(folder / "journal.jsonl", FixedClock(1'795'510'300.5));
  journal.Append("stage_begun", {{"stage", "train"}, {"step", 600}});
  journal.Append("done");
  EXPECT_EQ(ReadFile(folder / "journal.jsonl"),
            "{\"time\":\"2026-11-24T08:51:40.500Z\",\"event\":\"stage_begun\",\"stage\":\"train\","
            "\"step\":600}\n"
            "{\"time\":\"2026-11-24T08:51:40.500Z\",\"event\":\"done\"}\n");
}

TEST(JournalTest, OpeningCutsATornLineAtAnyByteAndGoesOn) {
  const TempFolder folder;
  const std::string path = folder / "journal.jsonl";
  Journal(path, FixedClock(1)).Append("first", {{"text", "a \"quoted\"\nline"}});
  const std::string first = ReadFile(path);
  Journal(path, FixedClock(2)).Append("second");
  const std::string both = ReadFile(path);
  for (size_t size = 0; size <= both.size(); ++size) {
    WriteFileAtomically(path, both.substr(0, size));
    const size_t whole = (size >= first.size() ? 1u : 0u) + (size == both.size() ? 1u : 0u);
    const JsonLines before = ReadJsonLines(path);
    EXPECT_EQ(before.records.size(), whole) << size;
    EXPECT_EQ(before.torn, size != 0 && size != first.size() && size != both.size()) << size;
    Journal(path, FixedClock(3)).Append("third");
    const JsonLines after = ReadJsonLines(path);
    ASSERT_EQ(after.records.size(), whole + 1) << size;
    EXPECT_EQ(after.records.back()["event"], "third");
    EXPECT_FALSE(after.torn);
  }
}

TEST(JournalTest, AMissingFileIsEmpty) {
  const TempFolder folder;
  EXPECT_TRUE(ReadJsonLines(folder / "none").records.empty());
  EXPECT_FALSE(RepairJsonLines(folder / "none"));
}

TEST(JournalTest, DamageInTheMiddleIsNamedWithItsLine) {
  const TempFolder folder;
  for (const char* bad : {"{\"a\":", "[1]", "17", "", "{} {}"}) {
    WriteFileAtomically(folder / "f", StrCat("{\"a\":1}\n", bad, "\n{\"a\":2}\n"));
    try {
      ReadJsonLines(folder / "f");
      FAIL() << bad;
    } catch (const FormatError& error) {
      EXPECT_NE(std::string(error.what()).find("f:2:"), std::string::npos) << error.what();
    }
  }
}

TEST(JournalTest, TextThatIsNotUtf8IsKeptReadable) {
  const TempFolder folder;
  Journal(folder / "j", FixedClock(1)).Append("odd", {{"text", "a\xff z"}});
  EXPECT_EQ(ReadJsonLines(folder / "j").records.at(0)["text"], "a\xef\xbf\xbd z");
}

TEST(JournalTest, FieldsMayNotReplaceTimeOrEvent) {
  const TempFolder folder;
  Journal journal(folder / "j", FixedClock(1));
  EXPECT_THROW(journal.Append("x", {{"time", 1}}), BugError);
  EXPECT_THROW(journal.Append("x", {{"event", "y"}}), BugError);
  EXPECT_THROW(journal.Append("x", nlohmann::json::array()), BugError);
}

TEST(JournalTest, AFullDiskIsAResourceErrorAndLeavesWholeLines) {
  const TempFolder folder;
  Journal journal(folder / "j", FixedClock(1));
  journal.Append("before");
  rlimit old_limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{80, old_limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_THROW(journal.Append("big", {{"text", std::string(500, 'x')}}), ResourceError);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  ::signal(SIGXFSZ, old_handler);
  const JsonLines lines = ReadJsonLines(folder / "j");
  ASSERT_EQ(lines.records.size(), 1u);
  EXPECT_EQ(lines.records[0]["event"], "before");
  Journal(folder / "j", FixedClock(2)).Append("after");
  EXPECT_EQ(ReadJsonLines(folder / "j").records.size(), 2u);
}

}  // namespace
}  // namespace tern
