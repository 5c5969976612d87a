// Programs that a model wrote may do anything: each attack here ends within its limits, as a
// failure or a timeout, and leaves nothing behind.
#include "tasks/sandbox.h"

#include <dirent.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace tern::testing {
namespace {

using tasks::Outcome;
using tasks::Sandbox;
using tasks::SandboxOptions;
using tasks::SandboxResult;

const Sandbox& Python(double wall_seconds = 20) {
  static const Sandbox sandbox([&] {
    SandboxOptions options;
    options.wall_seconds = wall_seconds;
    return options;
  }());
  return sandbox;
}

// With the interpreter that was found above: looking for it takes as long as a program.
Sandbox Limited(double wall_seconds, int64_t cpu_seconds = 10) {
  SandboxOptions options = Python().options();
  options.wall_seconds = wall_seconds;
  options.cpu_seconds = cpu_seconds;
  return Sandbox(options);
}

SandboxResult Try(const std::string& program) { return Python().Run(program); }

// Prints in the error line what each call gave, so that one process tells of many.
std::string Refused(const std::string& setup, const std::vector<std::string>& calls) {
  std::string program = setup + "\nopen_doors = []\n";
  for (const std::string& call : calls)
    program += "try:\n  " + call + "\n  open_doors.append('''" + call +
               "''')\nexcept (OSError, PermissionError, RuntimeError, MemoryError):\n  pass\n";
  program += "assert not open_doors, open_doors\n";
  const SandboxResult result = Try(program);
  return result.outcome == Outcome::kPassed ? "" : result.message;
}

TEST(SandboxTest, PassesFailsAndSaysWhy) {
  EXPECT_EQ(Try("assert 1 + 1 == 2").outcome, Outcome::kPassed);
  const SandboxResult wrong = Try("assert 1 + 1 == 3, 'arithmetic'");
  EXPECT_EQ(wrong.outcome, Outcome::kFailed);
  EXPECT_EQ(wrong.message, "AssertionError: arithmetic");
  EXPECT_EQ(Try("def f(:").outcome, Outcome::kFailed);
  // What the standard library is needed for still works, threads too.
  const SandboxResult library =
      Try("import math, re, collections, itertools, hashlib, random, threading\n"
          "t = threading.Thread(target=lambda: None)\nt.start()\nt.join()\n"
          "assert hashlib.md5(b'').hexdigest()[:4] == 'd41d'\nprint('x' * 100)");
  EXPECT_EQ(library.outcome, Outcome::kPassed) << library.message;
}

TEST(SandboxTest, EndingEarlyIsNoPass) {
  for (const char* way : {"import sys\nsys.exit(0)", "import os\nos._exit(0)",
                          "import os\nos.close(1)\nos.close(2)\nos._exit(0)", "raise SystemExit",
                          "import os\nos.abort()"})
    EXPECT_EQ(Try(std::string(way)).outcome, Outcome::kFailed) << way;
}

TEST(SandboxTest, EndlessLoopsEnd) {
  EXPECT_EQ(Limited(20, 1).Run("while True: pass").outcome, Outcome::kTimeout);
  EXPECT_EQ(Limited(0.3).Run("import time\ntime.sleep(100)").outcome, Outcome::kTimeout);
  EXPECT_EQ(Limited(0.5)
                .Run("import os, signal, time\nfor s in range(1, 32):\n"
                     "  try: signal.signal(s, signal.SIG_IGN)\n  except OSError: pass\n"
                     "os.close(0); os.close(1); os.close(2)\ntime.sleep(100)")
                .outcome,
            Outcome::kTimeout);
}

TEST(SandboxTest, MemoryHogsAndDeepRecursionFail) {
  EXPECT_EQ(Try("x = 'a' * (1 << 40)").outcome, Outcome::kFailed);
  EXPECT_EQ(Try("x = []\nwhile True: x.append('a' * (1 << 24))").outcome, Outcome::kFailed);
  EXPECT_EQ(Try("f = lambda: f()\nf()").outcome, Outcome::kFailed);
  EXPECT_EQ(Try("import threading, time\nwhile True:\n"
                "  threading.Thread(target=time.sleep, args=(99,), daemon=True).start()")
                .outcome,
            Outcome::kFailed);
}

TEST(SandboxTest, OutputFloodsAreForgotten) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(Limited(0.5).Run("while True: print('x' * 100000)").outcome, Outcome::kTimeout);
  EXPECT_EQ(Limited(0.5).Run("import os\nwhile True: os.write(2, b'x' * 100000)").outcome,
            Outcome::kTimeout);
  EXPECT_EQ(Try("import sys\nfor i in range(100): sys.stderr.write('x' * 10000)").outcome,
            Outcome::kPassed);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST(SandboxTest, ForkBombsHaveNoFirstFork) {
  EXPECT_EQ(
      Refused("import os, subprocess, multiprocessing",
              {"os.fork()", "os.forkpty()", "subprocess.run(['/bin/true'])",
               "os.posix_spawn('/bin/true', ['true'], {})", "os.setsid()", "os.setpgid(0, 0)"}),
      "");
  EXPECT_EQ(Try("import os\nwhile True: os.fork()").outcome, Outcome::kFailed);
}

TEST(SandboxTest, NoNetworkNoFilesNoSignals) {
  EXPECT_EQ(Refused("import socket", {"socket.socket()", "socket.socket(socket.AF_UNIX)",
                                      "socket.create_connection(('127.0.0.1', 1), 1)"}),
            "");
  const std::string victim = std::filesystem::temp_directory_path() / "tern-sandbox-victim";
  std::ofstream(victim) << "kept";
  EXPECT_EQ(
      Refused("import os, shutil, tempfile, mmap\np = '" + victim + "'",
              {"open('x', 'w')", "open('/tmp/x', 'w')", "open(p, 'a')", "open(p, 'r+')",
               "os.open(p, os.O_RDONLY | os.O_TRUNC)", "os.remove(p)", "os.rename(p, p + '2')",
               "os.truncate(p, 0)", "os.chmod(p, 0)", "os.mkdir('d')", "os.symlink(p, 'l')",
               "os.utime(p)", "os.rmdir(os.getcwd())", "shutil.rmtree('/tmp/tern-sandbox-victim')",
               "tempfile.mkdtemp()", "os.memfd_create('m')", "os.mkfifo('f')"}),
      "");
  std::string text;
  std::ifstream(victim) >> text;
  EXPECT_EQ(text, "kept");
  std::filesystem::remove(victim);
  EXPECT_EQ(Refused("import os, signal", {"os.kill(os.getppid(), 9)", "os.kill(-1, 9)",
                                          "os.kill(os.getpid(), 0)", "os.killpg(0, 9)"}),
            "");
}

TEST(SandboxTest, StartsWithNothing) {
  ::setenv("TERN_SECRET", "1", 1);
  const SandboxResult result =
      Try("import os\nassert os.listdir('.') == [], os.listdir('.')\n"
          "assert 'TERN_SECRET' not in os.environ, os.environ\n"
          "fds = sorted(int(f) for f in os.listdir('/proc/self/fd'))\n"
          "assert fds[:4] == [0, 1, 2, 3] and len(fds) <= 6, fds");
  EXPECT_EQ(result.outcome, Outcome::kPassed) << result.message;
  ::unsetenv("TERN_SECRET");
}

// After all of the attacks: no child is left, running or as a zombie, and no folder.
TEST(SandboxTest, LeavesNothingBehind) {
  EXPECT_EQ(Limited(0.2).Run("import time\ntime.sleep(9)").outcome, Outcome::kTimeout);
  errno = 0;
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
  for (const auto& entry : std::filesystem::directory_iterator("/tmp"))
    EXPECT_TRUE(entry.path().filename().string().rfind("tern-sandbox-", 0) != 0) << entry.path();
}

TEST(SandboxTest, SaysThatThereIsNoPython) {
  SandboxOptions options;
  options.python = "/no/such/python";
  EXPECT_THROW(Sandbox{options}, InputError);
}

}  // namespace
}  // namespace tern::testing
