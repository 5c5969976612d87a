// RunProgram: output, failures and programs that are not there.
#include "base/subprocess.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace tern {
namespace {

TEST(RunProgram, GivesWhatIsPrintedWithoutAShell) {
  EXPECT_EQ(RunProgram({"/bin/echo", "a  b", "$HOME", "'"}), "a  b $HOME '\n");
  // More than a pipe holds.
  EXPECT_EQ(RunProgram({"/usr/bin/head", "-c", "300000", "/dev/zero"}), std::string(300000, '\0'));
}

TEST(RunProgram, FailuresAreSaid) {
  const auto message = [](const std::vector<std::string>& command) -> std::string {
    try {
      RunProgram(command);
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message({"/no/such/program"}).find("/no/such/program cannot be started"),
            std::string::npos);
  EXPECT_NE(message({"/bin/sh", "-c", "exit 3"}).find("ended with code 3"), std::string::npos);
  EXPECT_NE(message({"/bin/sh", "-c", "kill -9 $$"}).find("ended by signal 9"), std::string::npos);
}

}  // namespace
}  // namespace tern
