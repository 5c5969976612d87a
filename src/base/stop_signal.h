// SIGTERM, SIGINT and SIGUSR1 ask a run to save and stop (exit code 75). The handler only sets a
// flag; long loops poll it, in training and in evaluation. A second SIGINT or SIGTERM ends the
// process at once, as the default handler would.
#pragma once

namespace tern {

// Installs the handlers; safe to call again.
void InstallStopSignals();

// The signal that asked to stop, or 0.
int StopSignal();
inline bool StopRequested() { return StopSignal() != 0; }
// Throws StoppedError ("stopped by SIGTERM while WHAT") after a request.
void ThrowIfStopped(const char* what);

// "SIGTERM" and so on.
const char* SignalName(int signal);

// For tests: forgets a request.
void ClearStopRequest();

}  // namespace tern
