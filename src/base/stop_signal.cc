// See stop_signal.h.
#include "base/stop_signal.h"

#include <csignal>
#include <initializer_list>

#include "base/error.h"

namespace tern {
namespace {

volatile std::sig_atomic_t g_signal = 0;

void OnSignal(int signal) {
  if (g_signal != 0 && signal != SIGUSR1) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
    return;
  }
  g_signal = signal;
}

}  // namespace

void InstallStopSignals() {
  struct sigaction action {};
  action.sa_handler = OnSignal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;  // Reads and writes in progress are not disturbed.
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaction(signal, &action, nullptr);
}

int StopSignal() { return g_signal; }

void ThrowIfStopped(const char* what) {
  if (StopRequested())
    throw StoppedError(StrCat("stopped by ", SignalName(StopSignal()), " while ", what));
}

const char* SignalName(int signal) {
  switch (signal) {
    case SIGTERM:
      return "SIGTERM";
    case SIGINT:
      return "SIGINT";
    case SIGUSR1:
      return "SIGUSR1";
    default:
      return "signal";
  }
}

void ClearStopRequest() { g_signal = 0; }

}  // namespace tern
