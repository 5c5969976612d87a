// See spawn.h. One thread polls the ranks' pipes; processes are reaped in the same loop.
#include "parallel/spawn.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <iostream>
#include <map>
#include <optional>

#include "base/error.h"
#include "parallel/launch.h"
#include "parallel/store.h"

extern char** environ;

namespace tern::parallel {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kPollMs = 100;

volatile std::sig_atomic_t g_pending[64];  // Signals to pass on; written by the handler

void OnSignal(int signal) { g_pending[signal] = 1; }

// Environment of a rank: this process's with some variables set.
class RankEnvironment {
 public:
  explicit RankEnvironment(const std::map<std::string, std::string>& set) {
    for (char** entry = environ; *entry != nullptr; ++entry) {
      const std::string name(*entry, std::strcspn(*entry, "="));
      if (!set.contains(name)) texts_.emplace_back(*entry);
    }
    for (const auto& [name, value] : set) texts_.push_back(name + "=" + value);
    for (std::string& text : texts_) pointers_.push_back(text.data());
    pointers_.push_back(nullptr);
  }
  char** get() { return pointers_.data(); }

 private:
  std::vector<std::string> texts_;
  std::vector<char*> pointers_;
};

struct Rank {
  int number = 0;
  pid_t pid = -1;
  int pipe = -1;              // Read end of its stderr; -1: at its end
  std::string line;           // What came after the last newline
  std::optional<int> status;  // As waitpid gives it
};

class Launcher {
 public:
  explicit Launcher(const SpawnOptions& options) : options_(options) {
    struct sigaction action {};
    action.sa_handler = OnSignal;
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_RESTART;
    for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaction(signal, &action, nullptr);
  }
  ~Launcher() {
    for (Rank& rank : ranks_) {
      if (rank.pid > 0 && !rank.status) {
        ::kill(rank.pid, SIGKILL);
        ::waitpid(rank.pid, nullptr, 0);
      }
      if (rank.pipe >= 0) ::close(rank.pipe);
    }
  }

  SpawnResult Run() {
    for (int i = 0; i < options_.ranks; ++i) ranks_.push_back(Start(i));
    while (true) {
      PassSignals();
      ReadOutput(kPollMs);
      Reap();
      EndOthers();
      const bool all = std::all_of(ranks_.begin(), ranks_.end(),
                                   [](const Rank& rank) { return rank.status.has_value(); });
      if (all) break;
    }
    while (ReadOutput(0)) {
    }
    for (Rank& rank : ranks_) Flush(&rank);
    if (!first_failure_) return {stopped_ ? static_cast<int>(ExitCode::kStopped) : 0, -1};
    if (first_failure_->exit_code == static_cast<int>(ExitCode::kResource))
      std::cerr << "Run the same command again: it goes on from the last complete checkpoint\n";
    return *first_failure_;
  }

 private:
  Rank Start(int number);
  bool ReadOutput(int timeout_ms);  // Whether there was some
  void Flush(Rank* rank);
  void Reap();
  void Judge(const Rank& rank);
  void EndOthers();
  void ExpectEnds(double within_s);
  void PassSignals();

  SpawnOptions options_;
  StoreServer store_;
  std::vector<Rank> ranks_;
  std::optional<SpawnResult> first_failure_;
  bool first_has_lost_ = false;  // It says that another rank or a resource is the cause
  std::optional<Clock::time_point> kill_at_;
  std::optional<Clock::time_point> ended_by_;  // When all ranks must be, since some are
  bool stopped_ = false;
};

Rank Launcher::Start(int number) {
  Rank rank;
  rank.number = number;
  RankEnvironment environment({{kRanksVariable, "1"},
                               {"RANK", StrCat(number)},
                               {"WORLD_SIZE", StrCat(options_.ranks)},
                               {"LOCAL_RANK", StrCat(number)},
                               {"LOCAL_WORLD_SIZE", StrCat(options_.ranks)},
                               {"MASTER_ADDR", "127.0.0.1"},
                               {"MASTER_PORT", StrCat(store_.port())}});
  std::vector<char*> argv;
  for (std::string& argument : options_.command) argv.push_back(argument.data());
  argv.push_back(nullptr);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw ResourceError(StrCat("no pipe: ", std::strerror(errno)));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
  if (number != 0) posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  // A group of its own: Ctrl-C in a terminal reaches the launcher alone, which passes it on once.
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&attributes, 0);
  const int error =
      posix_spawn(&rank.pid, argv[0], &actions, &attributes, argv.data(), environment.get());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  rank.pipe = ends[0];
  if (error != 0) {
    ::close(ends[0]);
    throw ResourceError(StrCat("cannot start rank ", number, " (", options_.command[0],
                               "): ", std::strerror(error)));
  }
  return rank;
}

void Launcher::Flush(Rank* rank) {
  if (!rank->line.empty()) std::cerr << "[" << rank->number << "] " << rank->line << "\n";
  rank->line.clear();
}

bool Launcher::ReadOutput(int timeout_ms) {
  std::vector<pollfd> polled;
  std::vector<Rank*> owners;
  for (Rank& rank : ranks_) {
    if (rank.pipe < 0) continue;
    polled.push_back({rank.pipe, POLLIN, 0});
    owners.push_back(&rank);
  }
  if (polled.empty()) {
    if (timeout_ms > 0) ::usleep(static_cast<useconds_t>(timeout_ms) * 1000);
    return false;
  }
  if (::poll(polled.data(), polled.size(), timeout_ms) <= 0) return false;
  for (size_t i = 0; i < polled.size(); ++i) {
    if (polled[i].revents == 0) continue;
    char buffer[1 << 14];
    const ssize_t got = ::read(polled[i].fd, buffer, sizeof buffer);
    if (got < 0) continue;  // Interrupted
    if (got == 0) {
      ::close(owners[i]->pipe);
      owners[i]->pipe = -1;
      continue;
    }
    for (const char c : std::string_view(buffer, static_cast<size_t>(got))) {
      if (c == '\n' || c == '\r') {
        Flush(owners[i]);
      } else {
        owners[i]->line += c;
      }
    }
  }
  std::cerr << std::flush;
  return true;
}

void Launcher::Reap() {
  for (Rank& rank : ranks_) {
    int status = 0;
    if (rank.status || ::waitpid(rank.pid, &status, WNOHANG) != rank.pid) continue;
    rank.status = status;
    Judge(rank);
  }
}

void Launcher::Judge(const Rank& rank) {
  constexpr int kLost = static_cast<int>(ExitCode::kResource);
  const int status = *rank.status;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return ExpectEnds(options_.end_s);
  if (WIFEXITED(status) && WEXITSTATUS(status) == static_cast<int>(ExitCode::kStopped)) {
    stopped_ = true;  // Every rank stops so: the one that saves may take longer.
    return ExpectEnds(options_.stop_s);
  }
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : kLost;
  if (first_failure_) {
    if (first_has_lost_ && code != kLost) first_failure_ = SpawnResult{code, rank.number};
    first_has_lost_ = first_has_lost_ && code == kLost;
    return;
  }
  first_failure_ = SpawnResult{code, rank.number};
  first_has_lost_ = WIFEXITED(status) && code == kLost;
  const std::string how = WIFEXITED(status) ? StrCat("failed with exit code ", WEXITSTATUS(status))
                                            : StrCat("was ended by signal ", WTERMSIG(status), " (",
                                                     strsignal(WTERMSIG(status)), ")");
  std::cerr << "rank " << rank.number << " (process " << rank.pid << ") " << how
            << "; the other ranks are ended within " << options_.grace_s << " s\n";
  // The others notice by themselves as soon as they talk to it, and say what they saw.
  kill_at_ = Clock::now() + std::chrono::milliseconds(static_cast<int64_t>(options_.grace_s * 1e3));
  for (const Rank& other : ranks_) {
    if (!other.status) ::kill(other.pid, SIGTERM);
  }
}

// A rank that was stopped (SIGSTOP) when it had nothing left to exchange is missed by no other one.
void Launcher::ExpectEnds(double within_s) {
  if (!ended_by_)
    ended_by_ = Clock::now() + std::chrono::milliseconds(static_cast<int64_t>(within_s * 1e3));
}

void Launcher::EndOthers() {
  if (ended_by_ && Clock::now() >= *ended_by_ && !kill_at_) {
    for (const Rank& rank : ranks_) {
      if (rank.status) continue;
      std::cerr << "rank " << rank.number << " (process " << rank.pid
                << ") works on when others have ended: stopped or hanging; it is ended\n";
      if (!first_failure_)
        first_failure_ = SpawnResult{static_cast<int>(ExitCode::kResource), rank.number};
    }
    kill_at_ = Clock::now();
  }
  if (!kill_at_ || Clock::now() < *kill_at_) return;
  for (const Rank& rank : ranks_) {
    if (!rank.status) ::kill(rank.pid, SIGKILL);
  }
}

void Launcher::PassSignals() {
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
    if (!g_pending[signal]) continue;
    g_pending[signal] = 0;
    for (const Rank& rank : ranks_) {
      if (!rank.status) ::kill(rank.pid, signal);
    }
  }
}

}  // namespace

SpawnResult RunRanks(const SpawnOptions& options) {
  TERN_CHECK(options.ranks >= 1 && !options.command.empty(), options.ranks);
  return Launcher(options).Run();
}

void DieWithLauncher() { ::prctl(PR_SET_PDEATHSIG, SIGTERM); }

}  // namespace tern::parallel
