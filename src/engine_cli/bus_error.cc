// See bus_error.h.
#include "engine_cli/bus_error.h"

#include <signal.h>
#include <unistd.h>

#include "base/error.h"

namespace tern::engine_cli {
namespace {

constexpr char kMessage[] =
    "error: a file became shorter while it was in use (SIGBUS); another program cut or replaced it "
    "in place. Restore the file and run the command again\n";

// Only calls that are safe in a signal handler.
void OnBusError(int signal, siginfo_t* info, void*) {
  if (info->si_code == BUS_ADRERR) {  // No such page behind the mapping
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kMessage, sizeof kMessage - 1);
    ::_exit(static_cast<int>(ExitCode::kResource));
  }
  ::signal(signal, SIG_DFL);  // The instruction runs again and ends the process
}

}  // namespace

void ReportTruncatedMappings() {
  struct sigaction action = {};
  action.sa_sigaction = OnBusError;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace tern::engine_cli
