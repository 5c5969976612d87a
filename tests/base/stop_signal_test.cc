// A signal asks to stop; a second one of the impatient kind ends the process as it would without
// us.
#include "base/stop_signal.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace tern {
namespace {

TEST(StopSignalTest, EachSignalAsksToStop) {
  InstallStopSignals();
  InstallStopSignals();
  EXPECT_FALSE(StopRequested());
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
    ::raise(signal);
    EXPECT_TRUE(StopRequested());
    EXPECT_EQ(StopSignal(), signal);
    ClearStopRequest();
    EXPECT_FALSE(StopRequested());
  }
  EXPECT_STREQ(SignalName(SIGTERM), "SIGTERM");
}

TEST(StopSignalTest, ARepeatedSchedulerSignalIsPatient) {
  InstallStopSignals();
  ::raise(SIGUSR1);
  ::raise(SIGUSR1);  // Would end the process if it counted as impatience.
  EXPECT_EQ(StopSignal(), SIGUSR1);
  ClearStopRequest();
}

TEST(StopSignalTest, ASecondRequestEndsTheProcess) {
  const pid_t child = ::fork();
  if (child == 0) {
    InstallStopSignals();
    ::raise(SIGTERM);
    if (!StopRequested()) ::_exit(1);
    ::raise(SIGTERM);
    ::_exit(2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGTERM);
}

}  // namespace
}  // namespace tern
