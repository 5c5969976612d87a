// The launcher of `--ranks N` with shells in place of ranks: whose exit code counts, and that no
// rank is waited for without end.
#include "parallel/spawn.h"

#include <gtest/gtest.h>

#include <chrono>

namespace tern::parallel {
namespace {

SpawnOptions Shells(const std::string& script) {
  SpawnOptions options;
  options.command = {"/bin/sh", "-c", script};
  return options;
}

TEST(SpawnTest, AllEndWell) {
  const SpawnResult result = RunRanks(Shells("exit 0"));
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.failed_rank, -1);
}

TEST(SpawnTest, ARankThatStopsAfterTheLastExchangeIsEnded) {
  SpawnOptions options = Shells("[ $RANK = 1 ] && kill -STOP $$; exit 0");
  options.end_s = 0.3;
  testing::internal::CaptureStderr();
  const auto begin = std::chrono::steady_clock::now();
  const SpawnResult result = RunRanks(options);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_EQ(result.failed_rank, 1);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("works on when others have ended"), std::string::npos) << said;
}

TEST(SpawnTest, ARankThatStopsWhenOthersHaveSavedIsEnded) {
  SpawnOptions options = Shells("[ $RANK = 0 ] && kill -STOP $$; exit 75");
  options.stop_s = 0.3;
  const SpawnResult result = RunRanks(options);
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_EQ(result.failed_rank, 0);
}

// Rank 1 hears that rank 0 fails, and is gone before it.
TEST(SpawnTest, TheReasonCountsAndNotWhoWasQuicker) {
  testing::internal::CaptureStderr();
  const SpawnResult result =
      RunRanks(Shells("trap '' TERM; [ $RANK = 1 ] && exit 5; sleep 0.5; exit 2"));
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.failed_rank, 0);
  testing::internal::GetCapturedStderr();
}

TEST(SpawnTest, AKilledRankIsTheReason) {
  testing::internal::CaptureStderr();
  const SpawnResult result =
      RunRanks(Shells("trap '' TERM; [ $RANK = 1 ] && kill -KILL $$; sleep 0.5; exit 3"));
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_EQ(result.failed_rank, 1);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("goes on from the last complete checkpoint"), std::string::npos) << said;
}

// Run again, a wrong recipe is as wrong.
TEST(SpawnTest, NoAdviceToRunAWrongRecipeAgain) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(RunRanks(Shells("exit 2")).exit_code, 2);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("failed with exit code 2"), std::string::npos) << said;
  EXPECT_EQ(said.find("Run the same command again"), std::string::npos) << said;
}

}  // namespace
}  // namespace tern::parallel
