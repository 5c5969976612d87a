// `tern run` as several processes: started by --ranks or by variables as torchrun sets them; one of
// them killed, stopped, out of disk or with another recipe. It is named, nothing is lost, and the
// run goes on, also with another number of ranks.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "metrics/metrics_log.h"
#include "tests/job/run_process.h"

namespace tern::job {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;
using Variables = std::map<std::string, std::string>;

void WaitForStep(const SmallRun& run, int64_t step) {
  const auto begin = steady_clock::now();
  while (NewestStep(run) < step && steady_clock::now() - begin < std::chrono::seconds(60)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

std::vector<std::string> Hashes(const SmallRun& run) {
  std::vector<std::string> hashes;
  for (const MetricsRecord& record : ReadMetrics(run.Path("metrics.jsonl"))) {
    hashes.push_back(record.values.at("data_hash").dump());
  }
  return hashes;
}

double FirstLoss(const SmallRun& run) {
  return ReadMetrics(run.Path("metrics.jsonl")).at(0).values.at("loss").get<double>();
}

// One run of everything with two ranks, then longer with one: stages are shared, said once, and
// the samples are those of one process.
TEST(RanksRunTest, WholeRecipeWithTwoRanksThenOne) {
  const SmallRun run;
  ASSERT_EQ(RunProcess(run, {{"--ranks", "2", "train.steps=6", "parallel.shard=zero3"}, {}}).Wait(),
            0)
      << Log(run);
  const std::string log = Log(run);
  EXPECT_NE(log.find("[0] "), std::string::npos) << log;
  EXPECT_NE(log.find("launcher --ranks"), std::string::npos) << log;
  EXPECT_EQ(log.find("[1] plan of"), std::string::npos) << "rank 1 says what rank 0 says:\n" << log;
  EXPECT_TRUE(fs::exists(run.Path("train/step-00000006/rank-0001-of-0002.h5")));
  ASSERT_EQ(RunProcess(run, {{"train.steps=9"}, {}}).Wait(), 0) << Log(run);
  const SmallRun one;
  ASSERT_EQ(RunProcess(one, {{"train.steps=9"}, {}}).Wait(), 0) << Log(one);
  EXPECT_EQ(Hashes(run), Hashes(one));
  EXPECT_NEAR(FirstLoss(run), FirstLoss(one), 1e-12) << "ranks start from other values";
}

// Ranks that share products, then one alone.
TEST(RanksRunTest, TensorParallelThroughAllStages) {
  const SmallRun run;
  ASSERT_EQ(RunProcess(run, {{"--ranks", "2", "train.steps=6", "parallel.tensor=2"}, {}}).Wait(), 0)
      << Log(run);
  EXPECT_NE(Log(run).find("parallel.tensor"), std::string::npos) << Log(run);
  ASSERT_EQ(RunProcess(run, {{"train.steps=9"}, {}}).Wait(), 0) << Log(run);
  const SmallRun one;
  ASSERT_EQ(RunProcess(one, {{"train.steps=9"}, {}}).Wait(), 0) << Log(one);
  EXPECT_EQ(Hashes(run), Hashes(one));
  EXPECT_NEAR(FirstLoss(run), FirstLoss(one), 1e-12);
  const SmallRun alone;
  EXPECT_EQ(RunProcess(alone, {{"parallel.tensor=2"}, {}}).Wait(), 2);
  EXPECT_NE(Log(alone).find("--ranks 2"), std::string::npos) << Log(alone);
}

const std::map<std::string, std::string>& TheUndisturbed() {
  static const std::map<std::string, std::string> bits = [] {
    const SmallRun run;
    if (RunProcess(run, {{"--ranks", "2"}, {}}).Wait() != 0) throw std::runtime_error(Log(run));
    return BitsOf(run);
  }();
  return bits;
}

TEST(SlowRanksFaultTest, KilledRankIsNamedAndTheRunGoesOnToTheSameBits) {
  const SmallRun run;
  for (const int rank : {1, 0}) {
    RunProcess process(run, {{"--ranks", "2"}, {}});
    WaitForStep(run, NewestStep(run) + 3);
    const pid_t pid = process.Rank(rank);
    ASSERT_GT(pid, 0) << Log(run);
    ::kill(pid, SIGKILL);
    EXPECT_EQ(process.Wait(), 5) << Log(run);
    EXPECT_NE(Log(run).find(StrCat("rank ", rank, " (process ", pid, ") was ended by signal 9")),
              std::string::npos)
        << Log(run);
  }
  ASSERT_EQ(RunProcess(run, {{"--ranks", "2"}, {}}).Wait(), 0) << Log(run);
  EXPECT_EQ(Differences(BitsOf(run), TheUndisturbed()), "");
}

TEST(SlowRanksFaultTest, StoppedRankIsNamedInABoundedTime) {
  const SmallRun run;
  RunProcess process(run, {{"--ranks", "2", "train.steps=100000", "parallel.lost_after_s=4"}, {}});
  WaitForStep(run, 3);
  const pid_t pid = process.Rank(1);
  ASSERT_GT(pid, 0) << Log(run);
  const auto begin = steady_clock::now();
  ::kill(pid, SIGSTOP);
  EXPECT_EQ(process.Wait(), 5) << Log(run);
  // 4 s of silence, a beat or two until it is seen, 10 s of grace for the rank that hears nothing.
  EXPECT_LT(steady_clock::now() - begin, std::chrono::seconds(30));
  EXPECT_NE(Log(run).find(StrCat("process ", pid, ") has given no sign of life for 4 s")),
            std::string::npos)
      << Log(run);
}

TEST(SlowRanksFaultTest, SignalStopsAllWithEverythingSaved) {
  const SmallRun run;
  RunProcess process(run, {{"--ranks", "2"}, {}});
  WaitForStep(run, 3);
  ::kill(process.pid(), SIGTERM);
  EXPECT_EQ(process.Wait(), 75) << Log(run);
  ASSERT_EQ(RunProcess(run, {{"--ranks", "2"}, {}}).Wait(), 0) << Log(run);
  EXPECT_EQ(Differences(BitsOf(run), TheUndisturbed()), "");
}

// Variables as torchrun sets them, without its agent: rank 0 serves the store.
Variables Torchrun(int rank, int port) {
  return {{"RANK", StrCat(rank)},    {"WORLD_SIZE", "2"},          {"LOCAL_RANK", StrCat(rank)},
          {"LOCAL_WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", StrCat(port)},
          {"OMP_NUM_THREADS", "1"}};
}

int TestPort() { return 20000 + static_cast<int>(::getpid()) % 9000; }

TEST(SlowRanksFaultTest, RanksWithAnotherRecipeAreNamed) {
  const SmallRun run;
  RunProcess zero(run, {{}, Torchrun(0, TestPort())});
  RunProcess one(run, {{"train.steps=25"}, Torchrun(1, TestPort())});
  EXPECT_EQ(zero.Wait(), 2) << Log(run);
  EXPECT_EQ(one.Wait(), 2) << Log(run);
  EXPECT_NE(Log(run).find("rank 1 "), std::string::npos) << Log(run);
  EXPECT_NE(Log(run).find("has another recipe than rank 0"), std::string::npos) << Log(run);
}

// A full disk on one rank in the middle of a checkpoint, and torchrun's error file.
TEST(SlowRanksFaultTest, FullDiskOnOneRankIsNamedAndLosesNothing) {
  const SmallRun run;
  const std::string error_file = run.folder() / "error.json";
  ASSERT_EQ(RunProcess(run, {{"--ranks", "2", "train.steps=3"}, {}}).Wait(), 0) << Log(run);
  Variables variables = Torchrun(1, TestPort() + 1);
  variables["TORCHELASTIC_ERROR_FILE"] = error_file;
  RunProcess zero(run, {{}, Torchrun(0, TestPort() + 1)});
  RunProcess one(run, {{}, variables, /*file_limit_bytes=*/200'000});
  EXPECT_EQ(zero.Wait(), 5) << Log(run);
  EXPECT_EQ(one.Wait(), 5) << Log(run);
  EXPECT_NE(Log(run).find("rank 1 cannot write its part of a checkpoint"), std::string::npos)
      << Log(run);
  const nlohmann::json error = nlohmann::json::parse(ReadFile(error_file));
  EXPECT_NE(error.at("message").at("message").get<std::string>().find("cannot write its part"),
            std::string::npos);
  EXPECT_EQ(NewestStep(run), 3);
  ASSERT_EQ(RunProcess(run, {{"--ranks", "2"}, {}}).Wait(), 0) << Log(run);
  EXPECT_EQ(ReadMetrics(run.Path("metrics.jsonl")).size(), 24u);
}

// As on two machines whose folders are their own.
TEST(RanksRunTest, RanksWithFoldersOfTheirOwnAreNamed) {
  const SmallRun run;
  const std::string other = run.folder() / "other";
  RunProcess zero(run, {{}, Torchrun(0, TestPort() + 2)});
  RunProcess one(run, {{}, Torchrun(1, TestPort() + 2), 0, other});
  EXPECT_EQ(zero.Wait(), 2) << Log(run);
  EXPECT_EQ(one.Wait(), 2) << Log(run);
  EXPECT_NE(Log(run).find(StrCat("rank 1 does not see rank 0's run folder: ", other)),
            std::string::npos)
      << Log(run);
}

// A wrong recipe's exit code, whichever rank ends first.
TEST(RanksRunTest, AnotherModelIsRefusedWithTheExitCodeOfARecipe) {
  const SmallRun run;
  ASSERT_EQ(RunProcess(run, {{"--ranks", "2", "train.steps=3"}, {}}).Wait(), 0) << Log(run);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(RunProcess(run, {{"--ranks", "2", "train.steps=3", "model.num_layers=2"}, {}}).Wait(),
              2)
        << Log(run);
  }
  EXPECT_EQ(Log(run).find("Run the same command again"), std::string::npos) << Log(run);
}

TEST(SlowRanksFaultTest, RanksBelowAnotherLauncherAreRefused) {
  const SmallRun run;
  EXPECT_EQ(RunProcess(run, {{"--ranks", "2"}, Torchrun(0, TestPort())}).Wait(), 2);
  EXPECT_NE(Log(run).find("leave --ranks out"), std::string::npos) << Log(run);
}

}  // namespace
}  // namespace tern::job
