// What people read while they wait: durations, rates and sizes in three digits, and a line that
// shows itself neither too early nor too often. The clock is the test's own.
#include "base/progress.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "base/file.h"
#include "tests/testing/temp_folder.h"

namespace tern {
namespace {

TEST(FormatTest, Durations) {
  EXPECT_EQ(FormatDuration(0), "0.0 s");
  EXPECT_EQ(FormatDuration(0.44), "0.4 s");
  EXPECT_EQ(FormatDuration(9.94), "9.9 s");
  EXPECT_EQ(FormatDuration(9.96), "10 s");
  EXPECT_EQ(FormatDuration(59.4), "59 s");
  EXPECT_EQ(FormatDuration(59.6), "1 min 00 s");
  EXPECT_EQ(FormatDuration(185), "3 min 05 s");
  EXPECT_EQ(FormatDuration(3599.7), "1 h 00 min");
  EXPECT_EQ(FormatDuration(7620), "2 h 07 min");
  EXPECT_EQ(FormatDuration(86399), "1 d 00 h");
  EXPECT_EQ(FormatDuration(4 * 86400 + 3 * 3600), "4 d 03 h");
  EXPECT_EQ(FormatDuration(-1), "?");
  EXPECT_EQ(FormatDuration(std::nan("")), "?");
  EXPECT_EQ(FormatDuration(std::numeric_limits<double>::infinity()), "?");
}

TEST(FormatTest, SiHasThreeDigitsAcrossPrefixBorders) {
  EXPECT_EQ(FormatSi(0), "0");
  EXPECT_EQ(FormatSi(7), "7");
  EXPECT_EQ(FormatSi(7.5), "7.50");
  EXPECT_EQ(FormatSi(0.125), "0.125");
  EXPECT_EQ(FormatSi(999), "999");
  EXPECT_EQ(FormatSi(999.7), "1.00 k");
  EXPECT_EQ(FormatSi(1000), "1.00 k");
  EXPECT_EQ(FormatSi(1858), "1.86 k");
  EXPECT_EQ(FormatSi(12'345), "12.3 k");
  EXPECT_EQ(FormatSi(99'960), "100 k");
  EXPECT_EQ(FormatSi(999'400), "999 k");
  EXPECT_EQ(FormatSi(999'600), "1.00 M");
  EXPECT_EQ(FormatSi(6.2e6), "6.20 M");
  EXPECT_EQ(FormatSi(4e9), "4.00 G");
  EXPECT_EQ(FormatSi(-1500), "-1.50 k");
  EXPECT_EQ(FormatSi(std::nan("")), "?");
}

TEST(FormatTest, BytesAreBinary) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(512), "512 B");
  EXPECT_EQ(FormatBytes(1024), "1.00 KiB");
  EXPECT_EQ(FormatBytes(1536), "1.50 KiB");
  EXPECT_EQ(FormatBytes(3.2 * (1 << 30)), "3.20 GiB");
  EXPECT_EQ(FormatBytes(-1), "?");
}

class ProgressLineTest : public ::testing::Test {
 protected:
  ProgressLineTest() : out_(std::fopen((folder_ / "out").c_str(), "w")) {}
  ~ProgressLineTest() override { std::fclose(out_); }

  ProgressLine::Options Options(bool terminal, int64_t total) {
    ProgressLine::Options options;
    options.total = total;
    options.out = out_;
    options.terminal = terminal;
    options.now_s = [this] { return now_s_; };
    return options;
  }
  std::string Shown() {
    std::fflush(out_);
    return ReadFile(folder_ / "out");
  }
  int64_t CountShown(char c) {
    const std::string text = Shown();
    return std::count(text.begin(), text.end(), c);
  }

  testing::TempFolder folder_;
  std::FILE* out_;
  double now_s_ = 1000;
};

TEST_F(ProgressLineTest, PlainLineTellsRateAndTimeLeft) {
  ProgressLine line("tokenize", "tokens", Options(false, 100'000));
  now_s_ += 40;
  line.Update(25'000, "file 3");
  EXPECT_EQ(Shown(),
            "tokenize: 25.0 k of 100 k tokens (25 %), 625 tokens/s, 2 min 00 s left, file 3\n");
}

TEST_F(ProgressLineTest, WithoutATotalThereIsNoTimeLeft) {
  ProgressLine line("read", "bytes", Options(false, 0));
  now_s_ += 50;
  line.Update(100);
  EXPECT_EQ(Shown(), "read: 100 bytes, 2 bytes/s\n");
}

TEST_F(ProgressLineTest, AResumedRunCountsItsOwnUnitsOnly) {
  auto options = Options(false, 200);
  options.start = 100;
  ProgressLine line("train", "steps", options);
  now_s_ += 50;
  line.Update(150);
  EXPECT_EQ(Shown(), "train: 150 of 200 steps (75 %), 1 steps/s, 50 s left\n");
}

TEST_F(ProgressLineTest, PlainLinesAreFewAndShortWorkIsSilent) {
  {
    ProgressLine line("work", "steps", Options(false, 1000));
    for (int i = 1; i <= 1000; ++i, now_s_ += 0.1) line.Update(i);  // 100 s, one line each 30 s.
  }
  EXPECT_EQ(CountShown('\n'), 3);
  {
    ProgressLine line("short", "steps", Options(false, 10));
    now_s_ += 1;
    line.Update(10);
    line.Finish();
  }
  EXPECT_EQ(CountShown('\n'), 3);
}

TEST_F(ProgressLineTest, LiveLineIsRedrawnTenTimesASecondAtMost) {
  ProgressLine line("work", "steps", Options(true, 5000));
  for (int i = 1; i <= 3000; ++i) {  // 3 s, of which the first 2 are silent.
    now_s_ += 0.001;
    line.Update(i);
  }
  EXPECT_GE(CountShown('\r'), 9);
  EXPECT_LE(CountShown('\r'), 11);
  EXPECT_EQ(CountShown('\n'), 0);
  line.Finish("done");
  line.Finish("again");
  EXPECT_EQ(CountShown('\n'), 1);
  EXPECT_EQ(Shown().substr(Shown().size() - 8), "done\033[K\n");
}

TEST_F(ProgressLineTest, DestructionEndsALiveLine) {
  {
    ProgressLine line("work", "steps", Options(true, 10));
    now_s_ += 3;
    line.Update(10);
  }
  EXPECT_EQ(CountShown('\n'), 1);
}

TEST_F(ProgressLineTest, HundredPercentMeansAll) {
  ProgressLine line("work", "steps", Options(false, 100'000));
  now_s_ += 31;
  line.Update(99'999);
  EXPECT_NE(Shown().find("(99 %)"), std::string::npos) << Shown();
  line.Update(100'000);
  line.Finish();
  EXPECT_NE(Shown().find("(100 %)"), std::string::npos) << Shown();
  EXPECT_NE(Shown().find("took 31 s"), std::string::npos) << Shown();
}

}  // namespace
}  // namespace tern
