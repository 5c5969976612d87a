// A model file that is cut short while it is mapped ends the program with a line and exit code 5.
#include "engine_cli/bus_error.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

// In a process of its own, as every death test.
TEST(BusErrorDeathTest, AFileCutShortInUseIsSaid) {
  const TempFolder folder;
  const std::string path = folder / "model.gguf";
  WriteFileAtomically(path, std::string(100'000, 'x'));
  const auto read_after_the_cut = [&] {
    engine_cli::ReportTruncatedMappings();
    const MappedFile file(path);
    std::filesystem::resize_file(path, 10);
    // Beyond the page that still holds the end.
    const volatile std::byte* beyond = file.bytes().data() + 90'000;
    (void)*beyond;
  };
  EXPECT_EXIT(read_after_the_cut(), ::testing::ExitedWithCode(5), "became shorter");
}

TEST(BusErrorDeathTest, OtherBusErrorsStillKill) {
  const auto raise_it = [] {
    engine_cli::ReportTruncatedMappings();
    ::raise(SIGBUS);
    ::raise(SIGBUS);  // The first one put the default back
  };
  EXPECT_EXIT(raise_it(), ::testing::KilledBySignal(SIGBUS), "");
}

}  // namespace
}  // namespace tern::testing
