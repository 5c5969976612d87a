// `tern run` of a small recipe in a process of its own, to be killed, stopped or cut off from the
// disk, and what of the run must not depend on that.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/sha256.h"
#include "checkpoint/checkpoint.h"
#include "tests/job/small_run.h"

namespace tern::job {

// `tern run` in a process of its own.
class RunProcess {
 public:
  struct Options {
    std::vector<std::string> arguments;  // After the recipe
    std::map<std::string, std::string> variables;
    uint64_t file_limit_bytes = 0;  // No file may grow beyond it; 0: no limit
    std::string runs = "";          // Folder of run folders; empty: the run's
  };
  explicit RunProcess(const SmallRun& run) : RunProcess(run, Options()) {}
  RunProcess(const SmallRun& run, const Options& options) {
    std::vector<std::string> command = {TERN_BINARY, "run", run.recipe(), "--runs",
                                        options.runs.empty() ? run.runs() : options.runs};
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
  RunProcess(const RunProcess&) = delete;
  RunProcess& operator=(const RunProcess&) = delete;
  ~RunProcess() {
    if (pid_ > 0 && !waited_) {
      ::kill(pid_, SIGKILL);
      Wait();
    }
  }

  pid_t pid() const { return pid_; }
  void Signal(int signal) const { ::kill(pid_, signal); }
  // Exit code, or minus the signal that ended it.
  int Wait() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    waited_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  // As Wait; nothing when it works on after that time.
  std::optional<int> WaitFor(double seconds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    siginfo_t info{};
    while (std::chrono::steady_clock::now() < end) {
      if (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
          info.si_pid == pid_)
        return Wait();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return std::nullopt;
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

// What its processes said.
inline std::string Log(const SmallRun& run) { return ReadFile(run.folder() / "log.txt"); }

// Of the newest checkpoint of the training; 0: none.
inline int64_t NewestStep(const SmallRun& run) {
  return std::filesystem::exists(run.Path("train"))
             ? checkpoint::FindNewestValid(run.Path("train")).step
             : 0;
}

// Everything of a finished run that must not depend on interruptions: the newest checkpoint's
// tensors, the exported files, and every step's loss and gradient norm.
inline std::map<std::string, std::string> BitsOf(const SmallRun& run) {
  std::map<std::string, std::string> bits;
  const auto found = checkpoint::FindNewestValid(run.Path("train"));
  const checkpoint::CheckpointReader reader(found.path.value());
  for (const checkpoint::TensorInfo& tensor : reader.tensors()) {
    std::string bytes(static_cast<size_t>(tensor.size_bytes), '\0');
    reader.Read(tensor.name, tensor.type, tensor.shape, bytes.data());
    bits[tensor.name] = Sha256Hex(bytes);
  }
  for (const auto& entry : std::filesystem::recursive_directory_iterator(run.Path("exports"))) {
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
inline std::string Differences(const std::map<std::string, std::string>& found,
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

}  // namespace tern::job
