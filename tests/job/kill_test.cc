// `tern run` as a process that is killed, stopped by a signal or out of disk space: run again, it
// ends with the bits of a run that nobody disturbed.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/job/run_process.h"

namespace tern::job {
namespace {

namespace fs = std::filesystem;
using std::chrono::duration;
using std::chrono::steady_clock;

struct Undisturbed {
  std::map<std::string, std::string> bits;
  double seconds = 0;
};

const Undisturbed& TheUndisturbed() {
  static const Undisturbed undisturbed = [] {
    const SmallRun run;
    const auto begin = steady_clock::now();
    const int code = RunProcess(run).Wait();
    if (code != 0) throw std::runtime_error("tern run: " + Log(run));
    return Undisturbed{BitsOf(run), duration<double>(steady_clock::now() - begin).count()};
  }();
  return undisturbed;
}

// Kills runs `kills` times, each at a moment drawn from the length of a whole run; one that comes
// to its end is compared and another begun. Moments are seeded, but what happens at them differs
// from time to time, and the claim holds at any. Every second process writes checkpoints while it
// trains.
void KillAndCompare(int kills, uint64_t seed) {
  const Undisturbed& want = TheUndisturbed();
  RandomStream random(seed, "kills");
  for (int hits = 0; hits < kills;) {
    const SmallRun run;
    int code = -SIGKILL;
    while (code == -SIGKILL && hits < kills) {
      RunProcess process(
          run,
          {{hits % 2 == 0 ? "train.checkpoint_async=true" : "train.checkpoint_async=false"}, {}});
      std::this_thread::sleep_for(duration<double>(want.seconds * random.NextUniform()));
      process.Signal(SIGKILL);
      code = process.Wait();
      ASSERT_TRUE(code == -SIGKILL || code == 0) << code << "\n" << Log(run);
      hits += code == -SIGKILL;
    }
    ASSERT_EQ(RunProcess(run).Wait(), 0) << Log(run);
    ASSERT_EQ(Differences(BitsOf(run), want.bits), "") << "after " << hits << " kills";
  }
}

TEST(KillRunTest, GoesOnToTheSameBits) { KillAndCompare(/*kills=*/3, /*seed=*/1); }

TEST(SlowKillRunTest, ALongRowOfKills) { KillAndCompare(/*kills=*/60, /*seed=*/2); }

TEST(StopRunTest, ASignalSavesAndStopsWithExitCode75) {
  const Undisturbed& want = TheUndisturbed();
  const SmallRun run;
  int stopped = 0;
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
    RunProcess process(run);
    // In the training: after the first checkpoint that this process makes.
    const int64_t before = NewestStep(run);
    const auto begin = steady_clock::now();
    while (NewestStep(run) == before && steady_clock::now() - begin < std::chrono::seconds(30)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    process.Signal(signal);
    const int code = process.Wait();
    ASSERT_TRUE(code == 75 || code == 0) << code << "\n" << Log(run);
    stopped += code == 75;
  }
  EXPECT_GT(stopped, 0);
  ASSERT_EQ(RunProcess(run).Wait(), 0) << Log(run);
  EXPECT_EQ(Differences(BitsOf(run), want.bits), "");
}

// A limit on the size of files stops a checkpoint in the middle, as a full disk does.
TEST(FullDiskTest, LosesNothingAndGoesOnWhenThereIsRoom) {
  const SmallRun run;
  EXPECT_EQ(RunProcess(run, {.arguments = {}, .variables = {}, .file_limit_bytes = 1 << 20}).Wait(),
            5)
      << Log(run);
  EXPECT_NE(Log(run).find("train"), std::string::npos);
  ASSERT_EQ(RunProcess(run).Wait(), 0) << Log(run);
  EXPECT_EQ(Differences(BitsOf(run), TheUndisturbed().bits), "");
}

}  // namespace
}  // namespace tern::job
