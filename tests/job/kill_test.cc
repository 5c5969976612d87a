// `tern run` as a process that is killed, stopped by a signal or out of disk space: run again, it
// ends with the bits of a run that nobody disturbed.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/sha256.h"
#include "checkpoint/checkpoint.h"
#include "tests/job/small_run.h"

namespace tern::job {
namespace {

namespace fs = std::filesystem;
using std::chrono::duration;
using std::chrono::steady_clock;

// Starts `tern run` in a process of its own.
class TernProcess {
 public:
  // file_limit_bytes: no file may grow beyond it; 0: no limit.
  // asynchronous: checkpoints are written while training goes on.
  explicit TernProcess(const SmallRun& run, uint64_t file_limit_bytes = 0,
                       bool asynchronous = false) {
    const std::string recipe = run.recipe(), runs = run.runs(), log = run.folder() / "log.txt";
    pid_ = ::fork();
    if (pid_ != 0) return;
    const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    ::dup2(out, 1);
    ::dup2(out, 2);
    if (file_limit_bytes > 0) {
      const rlimit limit{file_limit_bytes, file_limit_bytes};
      ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    const char* how = asynchronous ? "train.checkpoint_async=true" : "train.checkpoint_async=false";
    ::execl(TERN_BINARY, TERN_BINARY, "run", recipe.c_str(), how, "--runs", runs.c_str(), nullptr);
    ::_exit(127);
  }

  void Signal(int signal) const { ::kill(pid_, signal); }

  // Exit code, or minus the signal that ended it.
  int Wait() const {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
};

// Everything of a finished run that must not depend on interruptions: the newest checkpoint's
// tensors, the exported files, and every step's loss and gradient norm.
std::map<std::string, std::string> BitsOf(const SmallRun& run) {
  std::map<std::string, std::string> bits;
  const auto found = checkpoint::FindNewestValid(run.Path("train"));
  const checkpoint::CheckpointReader reader(found.path.value());
  for (const checkpoint::TensorInfo& tensor : reader.tensors()) {
    std::string bytes(static_cast<size_t>(tensor.size_bytes), '\0');
    reader.Read(tensor.name, tensor.type, tensor.shape, bytes.data());
    bits[tensor.name] = Sha256Hex(bytes);
  }
  for (const auto& entry : fs::recursive_directory_iterator(run.Path("exports"))) {
    if (entry.is_regular_file())
      bits[entry.path().filename().string()] = Sha256Hex(ReadFile(entry.path().string()));
  }
  std::istringstream metrics(ReadFile(run.Path("metrics.jsonl")));
  int64_t lines = 0;
  for (std::string line; std::getline(metrics, line); ++lines) {
    nlohmann::json record = nlohmann::json::parse(line);
    record.erase("tokens_per_second");
    bits[StrCat("step ", record["step"])] = record.dump();
  }
  bits["lines of metrics.jsonl"] = StrCat(lines);
  return bits;
}

// The names whose bits differ, with both; empty when all are equal.
std::string Differences(const std::map<std::string, std::string>& found,
                        const std::map<std::string, std::string>& want) {
  std::string list;
  for (const auto& [name, bits] : want) {
    const auto other = found.find(name);
    if (other == found.end()) list += StrCat(name, ": missing\n");
    if (other != found.end() && other->second != bits)
      list += StrCat(name, ": ", other->second, "; undisturbed ", bits, "\n");
  }
  for (const auto& [name, bits] : found) {
    if (!want.contains(name)) list += StrCat(name, ": only in the disturbed run\n");
  }
  return list;
}

std::string Log(const SmallRun& run) {
  const std::string log = ReadFile(run.folder() / "log.txt");
  return log.size() > 3000 ? log.substr(log.size() - 3000) : log;
}

struct Undisturbed {
  std::map<std::string, std::string> bits;
  double seconds = 0;
};

const Undisturbed& TheUndisturbed() {
  static const Undisturbed undisturbed = [] {
    const SmallRun run;
    const auto begin = steady_clock::now();
    const int code = TernProcess(run).Wait();
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
      const TernProcess process(run, 0, /*asynchronous=*/hits % 2 == 0);
      std::this_thread::sleep_for(duration<double>(want.seconds * random.NextUniform()));
      process.Signal(SIGKILL);
      code = process.Wait();
      ASSERT_TRUE(code == -SIGKILL || code == 0) << code << "\n" << Log(run);
      hits += code == -SIGKILL;
    }
    ASSERT_EQ(TernProcess(run).Wait(), 0) << Log(run);
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
    const TernProcess process(run);
    // In the training: after the first checkpoint that this process makes.
    const auto checkpoints = [&] {
      return fs::exists(run.Path("train")) ? checkpoint::FindNewestValid(run.Path("train")).step
                                           : 0;
    };
    const int64_t before = checkpoints();
    const auto begin = steady_clock::now();
    while (checkpoints() == before && steady_clock::now() - begin < std::chrono::seconds(30)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    process.Signal(signal);
    const int code = process.Wait();
    ASSERT_TRUE(code == 75 || code == 0) << code << "\n" << Log(run);
    stopped += code == 75;
  }
  EXPECT_GT(stopped, 0);
  ASSERT_EQ(TernProcess(run).Wait(), 0) << Log(run);
  EXPECT_EQ(Differences(BitsOf(run), want.bits), "");
}

// A limit on the size of files stops a checkpoint in the middle, as a full disk does.
TEST(FullDiskTest, LosesNothingAndGoesOnWhenThereIsRoom) {
  const SmallRun run;
  EXPECT_EQ(TernProcess(run, /*file_limit_bytes=*/1 << 20).Wait(), 5) << Log(run);
  EXPECT_NE(Log(run).find("train"), std::string::npos);
  ASSERT_EQ(TernProcess(run).Wait(), 0) << Log(run);
  EXPECT_EQ(Differences(BitsOf(run), TheUndisturbed().bits), "");
}

}  // namespace
}  // namespace tern::job
