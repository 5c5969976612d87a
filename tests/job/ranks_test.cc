// `tern run` as several processes: started by --ranks or by variables as torchrun sets them; one of
// them killed, stopped, out of disk or with another recipe. It is named, nothing is lost, and the
// run goes on, also with another number of ranks.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "base/sha256.h"
#include "checkpoint/checkpoint.h"
#include "metrics/metrics_log.h"
#include "tests/job/small_run.h"

namespace tern::job {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;
using Variables = std::map<std::string, std::string>;

// `tern run` in a process of its own.
class Process {
 public:
  struct Options {
    std::vector<std::string> arguments;  // After the recipe
    Variables variables;
    uint64_t file_limit_bytes = 0;  // No file may grow beyond it; 0: no limit
  };
  Process(const SmallRun& run, const Options& options) {
    std::vector<std::string> command = {TERN_BINARY, "run", run.recipe(), "--runs", run.runs()};
    command.insert(command.end(), options.arguments.begin(), options.arguments.end());
    const std::string log = run.folder() / "log.txt";
    pid_ = ::fork();
    if (pid_ != 0) return;
    const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    ::dup2(out, 1);
    ::dup2(out, 2);
    if (options.file_limit_bytes > 0) {
      const rlimit limit{options.file_limit_bytes, options.file_limit_bytes};
      ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    for (const auto& [name, value] : options.variables) ::setenv(name.c_str(), value.c_str(), 1);
    std::vector<char*> argv;
    for (std::string& argument : command) argv.push_back(argument.data());
    argv.push_back(nullptr);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() {
    if (pid_ > 0 && !waited_) {
      ::kill(pid_, SIGKILL);
      Wait();
    }
  }

  pid_t pid() const { return pid_; }
  // Exit code, or minus the signal that ended it.
  int Wait() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    waited_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  // The process of a rank that this one has started; -1: not there.
  pid_t Rank(int rank) const {
    std::ifstream children(StrCat("/proc/", pid_, "/task/", pid_, "/children"));
    for (pid_t child; children >> child;) {
      std::ifstream environment(StrCat("/proc/", child, "/environ"));
      const std::string text((std::istreambuf_iterator<char>(environment)), {});
      if (text.find(StrCat('\0', "RANK=", rank, '\0')) != std::string::npos) return child;
    }
    return -1;
  }

 private:
  pid_t pid_ = -1;
  bool waited_ = false;
};

std::string Log(const SmallRun& run) { return ReadFile(run.folder() / "log.txt"); }

int64_t NewestStep(const SmallRun& run) {
  return fs::exists(run.Path("train")) ? checkpoint::FindNewestValid(run.Path("train")).step : 0;
}

void WaitForStep(const SmallRun& run, int64_t step) {
  const auto begin = steady_clock::now();
  while (NewestStep(run) < step && steady_clock::now() - begin < std::chrono::seconds(60)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

// Every number of metrics.jsonl but speed, and the exported files.
std::map<std::string, std::string> BitsOf(const SmallRun& run) {
  std::map<std::string, std::string> bits;
  for (const MetricsRecord& record : ReadMetrics(run.Path("metrics.jsonl"))) {
    nlohmann::json values = record.values;
    values.erase("tokens_per_second");
    bits[StrCat("step ", record.step)] = values.dump();
  }
  for (const auto& entry : fs::recursive_directory_iterator(run.Path("exports"))) {
    if (entry.is_regular_file())
      bits[entry.path().filename().string()] = Sha256Hex(ReadFile(entry.path().string()));
  }
  return bits;
}

std::vector<std::string> Hashes(const SmallRun& run) {
  std::vector<std::string> hashes;
  for (const MetricsRecord& record : ReadMetrics(run.Path("metrics.jsonl"))) {
    hashes.push_back(record.values.at("data_hash").dump());
  }
  return hashes;
}

// One run of everything with two ranks, then longer with one: stages are shared, said once, and
// the samples are those of one process.
TEST(RanksRunTest, WholeRecipeWithTwoRanksThenOne) {
  const SmallRun run;
  ASSERT_EQ(Process(run, {{"--ranks", "2", "train.steps=6", "parallel.shard=zero3"}, {}}).Wait(), 0)
      << Log(run);
  const std::string log = Log(run);
  EXPECT_NE(log.find("[0] "), std::string::npos) << log;
  EXPECT_NE(log.find("launcher --ranks"), std::string::npos) << log;
  EXPECT_EQ(log.find("[1] plan of"), std::string::npos) << "rank 1 says what rank 0 says:\n" << log;
  EXPECT_TRUE(fs::exists(run.Path("train/step-00000006/rank-0001-of-0002.h5")));
  ASSERT_EQ(Process(run, {{"train.steps=9"}, {}}).Wait(), 0) << Log(run);
  const SmallRun one;
  ASSERT_EQ(Process(one, {{"train.steps=9"}, {}}).Wait(), 0) << Log(one);
  EXPECT_EQ(Hashes(run), Hashes(one));
}

struct Undisturbed {
  std::map<std::string, std::string> bits;
};

const Undisturbed& TheUndisturbed() {
  static const Undisturbed undisturbed = [] {
    const SmallRun run;
    if (Process(run, {{"--ranks", "2"}, {}}).Wait() != 0) throw std::runtime_error(Log(run));
    return Undisturbed{BitsOf(run)};
  }();
  return undisturbed;
}

TEST(SlowRanksFaultTest, KilledRankIsNamedAndTheRunGoesOnToTheSameBits) {
  const SmallRun run;
  for (const int rank : {1, 0}) {
    Process process(run, {{"--ranks", "2"}, {}});
    WaitForStep(run, NewestStep(run) + 3);
    const pid_t pid = process.Rank(rank);
    ASSERT_GT(pid, 0) << Log(run);
    ::kill(pid, SIGKILL);
    EXPECT_EQ(process.Wait(), 5) << Log(run);
    EXPECT_NE(Log(run).find(StrCat("rank ", rank, " (process ", pid, ") was ended by signal 9")),
              std::string::npos)
        << Log(run);
  }
  ASSERT_EQ(Process(run, {{"--ranks", "2"}, {}}).Wait(), 0) << Log(run);
  EXPECT_EQ(BitsOf(run), TheUndisturbed().bits);
}

TEST(SlowRanksFaultTest, StoppedRankIsNamedInABoundedTime) {
  const SmallRun run;
  Process process(run, {{"--ranks", "2", "train.steps=100000", "parallel.lost_after_s=4"}, {}});
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
  Process process(run, {{"--ranks", "2"}, {}});
  WaitForStep(run, 3);
  ::kill(process.pid(), SIGTERM);
  EXPECT_EQ(process.Wait(), 75) << Log(run);
  ASSERT_EQ(Process(run, {{"--ranks", "2"}, {}}).Wait(), 0) << Log(run);
  EXPECT_EQ(BitsOf(run), TheUndisturbed().bits);
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
  Process zero(run, {{}, Torchrun(0, TestPort())});
  Process one(run, {{"train.steps=25"}, Torchrun(1, TestPort())});
  EXPECT_EQ(zero.Wait(), 2) << Log(run);
  EXPECT_EQ(one.Wait(), 2) << Log(run);
  EXPECT_NE(Log(run).find("rank 1 "), std::string::npos) << Log(run);
  EXPECT_NE(Log(run).find("has another recipe than rank 0"), std::string::npos) << Log(run);
}

// A full disk on one rank in the middle of a checkpoint, and torchrun's error file.
TEST(SlowRanksFaultTest, FullDiskOnOneRankIsNamedAndLosesNothing) {
  const SmallRun run;
  const std::string error_file = run.folder() / "error.json";
  ASSERT_EQ(Process(run, {{"--ranks", "2", "train.steps=3"}, {}}).Wait(), 0) << Log(run);
  Variables variables = Torchrun(1, TestPort() + 1);
  variables["TORCHELASTIC_ERROR_FILE"] = error_file;
  Process zero(run, {{}, Torchrun(0, TestPort() + 1)});
  Process one(run, {{}, variables, /*file_limit_bytes=*/200'000});
  EXPECT_EQ(zero.Wait(), 5) << Log(run);
  EXPECT_EQ(one.Wait(), 5) << Log(run);
  EXPECT_NE(Log(run).find("rank 1 cannot write its part of a checkpoint"), std::string::npos)
      << Log(run);
  const nlohmann::json error = nlohmann::json::parse(ReadFile(error_file));
  EXPECT_NE(error.at("message").at("message").get<std::string>().find("cannot write its part"),
            std::string::npos);
  EXPECT_EQ(NewestStep(run), 3);
  ASSERT_EQ(Process(run, {{"--ranks", "2"}, {}}).Wait(), 0) << Log(run);
  EXPECT_EQ(ReadMetrics(run.Path("metrics.jsonl")).size(), 24u);
}

TEST(SlowRanksFaultTest, RanksBelowAnotherLauncherAreRefused) {
  const SmallRun run;
  EXPECT_EQ(Process(run, {{"--ranks", "2"}, Torchrun(0, TestPort())}).Wait(), 2);
  EXPECT_NE(Log(run).find("leave --ranks out"), std::string::npos) << Log(run);
}

}  // namespace
}  // namespace tern::job
