// See sandbox.h.
#include "tasks/sandbox.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <random>

#include "base/error.h"
#include "base/subprocess.h"
#include "tasks/sandbox_filter.h"

namespace tern::tasks {
namespace {

// The child's file descriptors beside 0, 1, 2: the program's text.
constexpr int kProgramFd = 3;
constexpr rlim_t kOpenFiles = 64;
constexpr rlim_t kFileBytes = 1 << 20;
// Kept of each output: what comes before is read and forgotten.
constexpr size_t kTailBytes = 4096;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Closes on destruction.
class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  ~Fd() { Close(); }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }
  void Set(int fd) {
    Close();
    fd_ = fd;
  }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

[[noreturn]] void NoResource(const char* what) {
  throw ResourceError(StrCat("the sandbox for programs: no ", what, ": ", std::strerror(errno)));
}

// A folder that nobody else has; gone on destruction.
class EmptyFolder {
 public:
  EmptyFolder() {
    if (!mkdtemp(path_)) NoResource("empty folder in /tmp");
  }
  ~EmptyFolder() { rmdir(path_); }
  const char* path() const { return path_; }

 private:
  char path_[32] = "/tmp/tern-sandbox-XXXXXX";
};

void MakePipe(Fd* read_end, Fd* write_end) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) NoResource("pipe");
  read_end->Set(ends[0]);
  write_end->Set(ends[1]);
}

// The bytes as an anonymous file. Numbers 0 to 4 are left free for the child's own.
void MakeProgramFile(const std::string& program, Fd* file) {
  Fd made(memfd_create("program", MFD_CLOEXEC));
  if (made.get() < 0) NoResource("memory for the program");
  for (size_t done = 0; done < program.size();) {
    const ssize_t count = write(made.get(), program.data() + done, program.size() - done);
    if (count < 0) NoResource("memory for the program");
    done += static_cast<size_t>(count);
  }
  file->Set(fcntl(made.get(), F_DUPFD_CLOEXEC, kProgramFd + 1));
  if (file->get() < 0) NoResource("file descriptor");
}

struct Child {
  const char* python;
  const char* folder;
  int program, out, error;
  const SandboxOptions* options;
};

bool Limit(decltype(RLIMIT_CPU) what, rlim_t value) {
  const rlimit limit{value, value};
  return setrlimit(what, &limit) == 0;
}

bool SetLimits(const SandboxOptions& options) {
  return Limit(RLIMIT_CPU, static_cast<rlim_t>(options.cpu_seconds)) &&
         Limit(RLIMIT_AS, static_cast<rlim_t>(options.memory_bytes)) &&
         Limit(RLIMIT_FSIZE, kFileBytes) && Limit(RLIMIT_NOFILE, kOpenFiles) &&
         Limit(RLIMIT_CORE, 0);
}

// Between fork and exec of a process with many threads: system calls only. Never returns; what
// failed is said on the error pipe.
[[noreturn]] void RunChild(const Child& child, pid_t parent) {
  const auto fail = [](const char* what) {
    (void)!write(STDERR_FILENO, what, std::strlen(what));
    _exit(127);
  };
  if (dup2(child.error, STDERR_FILENO) < 0) _exit(127);
  // A session of its own, and the end with the parent's.
  if (setsid() < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail("sandbox: session");
  if (getppid() != parent) fail("sandbox: the parent has ended");
  const int null = open("/dev/null", O_RDONLY);
  if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(child.out, STDOUT_FILENO) < 0 ||
      dup2(child.program, kProgramFd) < 0)
    fail("sandbox: file descriptors");
  syscall(__NR_close_range, kProgramFd + 1, ~0U, 0);  // Older kernels: all of ours close at exec
  if (chdir(child.folder) != 0) fail("sandbox: folder");
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  signal(SIGXFSZ, SIG_DFL);
  if (!SetLimits(*child.options)) fail("sandbox: limits");
  if (!InstallSandboxFilter() && !child.options->unsafe) fail("sandbox: filter");
  // Isolated (-I): no PYTHON* variables, no user's packages, no script's folder on the path.
  const char* argv[] = {child.python, "-I", "-B", "/proc/self/fd/3", nullptr};
  const char* environment[] = {"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "HOME=/", nullptr};
  execve(child.python, const_cast<char**>(argv), const_cast<char**>(environment));
  fail("sandbox: the Python interpreter cannot be started");
  _exit(127);
}

// Reads what is there into the tail; false at the end.
bool Drain(int fd, std::string* tail) {
  char buffer[65536];
  const ssize_t got = read(fd, buffer, sizeof buffer);
  if (got < 0) return errno == EINTR || errno == EAGAIN;
  tail->append(buffer, static_cast<size_t>(got));
  if (tail->size() > kTailBytes) tail->erase(0, tail->size() - kTailBytes);
  return got > 0;
}

struct Ending {
  int status = 0;
  bool timeout = false;
  std::string out, error;
};

// Reads both pipes until they end or the time is over, kills the group and waits.
Ending Watch(pid_t pid, int out, int error, double seconds) {
  Ending ending;
  pollfd fds[] = {{out, POLLIN, 0}, {error, POLLIN, 0}};
  const double end = Now() + seconds;
  bool ended = false;
  while (!ended) {
    const double left = end - Now();
    if (left <= 0) {
      ending.timeout = true;
      break;
    }
    // A program may close its outputs and go on: look for its end, too.
    const bool open = fds[0].fd >= 0 || fds[1].fd >= 0;
    const int wait_ms = static_cast<int>(std::min(left * 1000 + 1, open ? 50.0 : 5.0));
    if (poll(fds, 2, wait_ms) > 0) {
      if (fds[0].revents && !Drain(out, &ending.out)) fds[0].fd = -1;
      if (fds[1].revents && !Drain(error, &ending.error)) fds[1].fd = -1;
    }
    ended = waitpid(pid, &ending.status, WNOHANG) == pid;
  }
  if (!ended) {
    kill(-pid, SIGKILL);
    while (waitpid(pid, &ending.status, 0) < 0 && errno == EINTR) {
    }
  }
  // What was in the pipes at its end. Nobody else has them, so this cannot block for long.
  while (fds[0].fd >= 0 && Drain(out, &ending.out)) {
  }
  while (fds[1].fd >= 0 && Drain(error, &ending.error)) {
  }
  return ending;
}

std::string LastLine(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text.substr(text.rfind('\n') + 1).substr(0, 200);
}

SandboxResult Judge(const Ending& ending, const std::string& secret) {
  if (ending.timeout) return {Outcome::kTimeout, "took too long"};
  if (WIFSIGNALED(ending.status)) {
    const int signal = WTERMSIG(ending.status);
    if (signal == SIGXCPU || signal == SIGKILL) return {Outcome::kTimeout, "took too long"};
    return {Outcome::kFailed, StrCat("ended by signal ", signal)};
  }
  const bool whole = ending.out.find(secret) != std::string::npos;
  if (whole && WEXITSTATUS(ending.status) == 0) return {Outcome::kPassed, ""};
  const std::string line = LastLine(ending.error);
  return {Outcome::kFailed, line.empty() ? "ended before its tests did" : line};
}

}  // namespace

Sandbox::Sandbox(SandboxOptions options) : options_(std::move(options)) {
  if (options_.python.empty()) {
    // A name on the PATH may be a script that starts the interpreter, which the sandbox refuses.
    options_.python = RunProgram(
        {"/usr/bin/env", "python3", "-I", "-c", "import sys; print(sys.executable, end='')"});
  }
  TERN_CHECK_INPUT(access(options_.python.c_str(), X_OK) == 0, "no Python interpreter at ",
                   options_.python, "; name one with --python");
  if (!HasSandboxFilter() && !options_.unsafe)
    throw ResourceError(
        "this kernel has no seccomp filters, without which programs that a model wrote could use "
        "the network and change files. Run this in a virtual machine that nobody will miss with "
        "--unsafe-run-code-without-isolation");
}

SandboxResult Sandbox::Run(const std::string& program) const {
  std::random_device device;
  // Printed by the last line: what ends early does not print it.
  const std::string secret = StrCat("whole-", device(), device(), device(), device());
  Fd file, out, out_write, error, error_write;
  MakePipe(&out, &out_write);
  MakePipe(&error, &error_write);
  MakeProgramFile(StrCat(program, "\nimport os as _os\n_os.write(1, b'", secret, "')\n"), &file);
  const EmptyFolder folder;
  const Child child{options_.python.c_str(), folder.path(),     file.get(),
                    out_write.get(),         error_write.get(), &options_};
  const pid_t parent = getpid(), pid = fork();
  if (pid < 0) NoResource("process");
  if (pid == 0) RunChild(child, parent);
  out_write.Close();
  error_write.Close();
  Ending ending = Watch(pid, out.get(), error.get(), options_.wall_seconds);
  if (WIFEXITED(ending.status) && WEXITSTATUS(ending.status) == 127 &&
      ending.error.rfind("sandbox: ", 0) == 0)
    throw ResourceError(StrCat("a program cannot be run: ", ending.error));
  return Judge(ending, secret);
}

}  // namespace tern::tasks
