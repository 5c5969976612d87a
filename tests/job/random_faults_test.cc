// Trainings of several ranks with a random fault in each of many starts, at a random moment: a rank
// or the launcher killed, a rank stopped, a signal to stop, a disk that is full. Each start ends in
// a bounded time and leaves no process behind; run again without faults, the run ends with the bits
// of one that nobody disturbed. TERN_FAULT_STARTS: how many starts; TERN_FAULT_SEED: which ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "tests/job/run_process.h"

namespace tern::job {
namespace {

using std::chrono::duration;
using std::chrono::steady_clock;

enum class Fault { kKilledRank, kKilledLauncher, kStoppedRank, kSignal, kFullDisk };
constexpr uint64_t kFaults = 5;
constexpr const char* kNames[] = {"a killed rank", "a killed launcher", "a stopped rank",
                                  "a signal", "a full disk"};
// 20 s until a rank that does not arrive is lost, 3 s for one that falls silent, 10 s of grace, and
// what a busy machine takes.
constexpr double kBound_s = 60;

int FromEnvironment(const char* name, int otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::atoi(value);
}

int Starts() { return FromEnvironment("TERN_FAULT_STARTS", 15); }
uint64_t Seed() { return static_cast<uint64_t>(FromEnvironment("TERN_FAULT_SEED", 1)); }

// Processes whose command line names the run's recipe.
int Processes(const SmallRun& run) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::ifstream command(entry.path() / "cmdline");
    const std::string text((std::istreambuf_iterator<char>(command)), {});
    count += text.find(run.recipe()) != std::string::npos;
  }
  return count;
}

double SecondsUntilGone(const SmallRun& run) {
  const auto begin = steady_clock::now();
  double seconds = 0;
  while (Processes(run) > 0 && seconds < kBound_s) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    seconds = duration<double>(steady_clock::now() - begin).count();
  }
  return seconds;
}

class RandomFaults {
 public:
  RandomFaults(int ranks, const std::vector<std::string>& overrides, uint64_t seed)
      : ranks_(ranks), random_(seed, "faults") {
    healthy_.arguments = {"--ranks", StrCat(ranks), "parallel.start_timeout_s=20",
                          "parallel.lost_after_s=3"};
    healthy_.arguments.insert(healthy_.arguments.end(), overrides.begin(), overrides.end());
    const SmallRun run;
    const auto begin = steady_clock::now();
    if (RunProcess(run, healthy_).Wait() != 0) throw std::runtime_error(Log(run));
    seconds_ = duration<double>(steady_clock::now() - begin).count();
    want_ = BitsOf(run);
  }

  // Starts runs `starts` times, each with a fault to meet; a run is ended well and compared after
  // some faults, or when it was quicker than one.
  void Run(int starts) {
    met_faults_ = 0;
    for (int start = 0; start < starts;) {
      const SmallRun run;
      std::string met;
      bool ended = false;
      for (uint64_t i = 2 + random_.NextU64() % 5; i > 0 && start < starts && !ended; --i) {
        ++start;
        const auto fault = static_cast<Fault>(random_.NextU64() % kFaults);
        met += StrCat(kNames[static_cast<size_t>(fault)], ", ");
        ASSERT_NO_FATAL_FAILURE(Meet(run, fault, &ended)) << "after " << met << "\n" << Log(run);
      }
      ASSERT_EQ(RunProcess(run, healthy_).Wait(), 0) << "after " << met << "\n" << Log(run);
      ASSERT_EQ(Differences(BitsOf(run), want_), "") << "after " << met;
    }
    EXPECT_GT(met_faults_, starts / 4) << "faults came too early or too late";
    std::cout << met_faults_ << " of " << starts << " starts ended by their fault\n";
  }

 private:
  // *ended_well: nothing of the run is left to do.
  void Meet(const SmallRun& run, Fault fault, bool* ended_well) {
    const auto begin = steady_clock::now();
    RunProcess::Options options = healthy_;
    // From less than one part of a checkpoint to more than the largest file of the run.
    if (fault == Fault::kFullDisk) options.file_limit_bytes = 1000 << (random_.NextU64() % 13);
    RunProcess process(run, options);
    if (fault != Fault::kFullDisk) {
      std::this_thread::sleep_for(duration<double>(seconds_ * random_.NextUniform()));
      const auto rank = static_cast<int>(random_.NextU64() % static_cast<uint64_t>(ranks_));
      const pid_t pid = process.Rank(rank);  // -1: not yet, or no longer there
      if (fault == Fault::kKilledLauncher) process.Signal(SIGKILL);
      if (fault == Fault::kSignal) process.Signal(SIGTERM);
      if (pid > 0 && fault == Fault::kKilledRank) ::kill(pid, SIGKILL);
      if (pid > 0 && fault == Fault::kStoppedRank) ::kill(pid, SIGSTOP);
    }
    const std::optional<int> ended = process.WaitFor(kBound_s + 4 * seconds_);
    ASSERT_TRUE(ended.has_value()) << "hangs";
    const int code = *ended;
    met_faults_ += code != 0;
    *ended_well = code == 0;
    // The first run may have met a busy machine.
    if (code == 0)
      seconds_ = std::min(seconds_, duration<double>(steady_clock::now() - begin).count());
    // 0: the fault came too early or too late to be one.
    const bool expected = code == 0 || code == 5 || code == 75 || code == -SIGKILL;
    EXPECT_TRUE(expected || (fault == Fault::kSignal && code == -SIGTERM)) << code;
    ASSERT_LT(SecondsUntilGone(run), kBound_s) << "processes stayed";
  }

  int ranks_;
  RandomStream random_;
  RunProcess::Options healthy_;
  int met_faults_ = 0;  // Starts that a fault ended
  double seconds_ = 0;  // Of a run that nobody disturbs
  std::map<std::string, std::string> want_;
};

TEST(SlowRandomFaultsTest, TwoRanksGoOnToTheSameBits) {
  RandomFaults(2, {"parallel.shard=zero3", "train.checkpoint_async=true"}, Seed()).Run(Starts());
}

TEST(SlowRandomFaultsTest, ThreeRanksGoOnToTheSameBits) {
  RandomFaults(3, {"train.tokens_per_step=192"}, Seed() + 1).Run(Starts());
}

}  // namespace
}  // namespace tern::job
