// See process.h.
#include "job/process.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "base/error.h"

extern char** environ;

namespace tern::job {

void RunProcess(const std::vector<std::string>& command) {
  TERN_CHECK_INPUT(std::filesystem::exists(command.at(0)), "there is no program ", command[0],
                   "; data.fetch wants the name of a script in scripts/fetch");
  std::vector<char*> arguments;
  for (const std::string& argument : command)
    arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO,
                                   STDOUT_FILENO);  // Our stdout is for results only.
  pid_t pid = 0;
  const int error = posix_spawn(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0)
    throw ResourceError(StrCat("cannot start ", command[0], ": ", std::strerror(error)));
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    throw ResourceError(StrCat(
        command[0], " failed (",
        WIFEXITED(status) ? StrCat("exit status ", WEXITSTATUS(status)) : "killed by a signal",
        "); its own words are above"));
  }
}

}  // namespace tern::job
