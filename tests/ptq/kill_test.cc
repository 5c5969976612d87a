// Quantizing that is killed at any moment, or has a full disk: run again it ends with the bytes of
// an undisturbed run, and before that nothing has the final name.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "ptq/ledger.h"
#include "ptq/quantize_model.h"
#include "ptq/verify.h"
#include "tests/engine/tiny_files.h"
#include "tests/ptq/tiny_source.h"
#include "tests/testing/file_size_limit.h"
#include "tests/testing/temp_folder.h"

namespace tern::ptq {
namespace {

namespace fs = std::filesystem;
using testing::TempFolder;

class Disturbed {
 public:
  Disturbed() { WriteTinySource(folder_); }

  QuantizeOptions Options(const std::string& to, const std::string& name) const {
    QuantizeOptions options = TinyOptions(folder_, to, name);
    options.calibration = folder_ / "text.idx";
    options.calibration_tokens = 288;
    options.min_max = true;
    return options;
  }

  // Everything beside the source that is not of the finished output.
  std::vector<std::string> Leftovers(const std::string& name) const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(folder_.path())) {
      const std::string file = entry.path().filename().string();
      if (file.starts_with(name) && file != name && file != name + ".ledger.jsonl")
        found.push_back(file);
    }
    return found;
  }

  const TempFolder& folder() const { return folder_; }

 private:
  TempFolder folder_;
};

std::map<std::string, std::string> BytesOf(const std::string& output) {
  std::map<std::string, std::string> bytes;
  if (!fs::is_directory(output)) {
    return {{"file", ReadFile(output)}, {"ledger", ReadFile(LedgerPath(output))}};
  }
  for (const auto& entry : fs::directory_iterator(output))
    bytes[entry.path().filename().string()] = ReadFile(entry.path().string());
  return bytes;
}

// Runs it in a process of its own, which is killed when `wait` returns; true when it was done
// before.
bool Ran(const QuantizeOptions& options, const std::function<void()>& wait) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      QuantizeModel(options);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
      ::_exit(1);
    }
    ::_exit(0);
  }
  wait();
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFEXITED(status)) {
    EXPECT_EQ(WEXITSTATUS(status), 0);
  }
  return WIFEXITED(status);
}

// Each output is killed up to `kills` times: as soon as its work folder is there, which is early on
// any machine, then at moments that are spread over the work.
void KillAndGoOn(const std::string& to, const std::string& ending, int outputs, int kills) {
  const Disturbed disturbed;
  const QuantizeOptions whole = disturbed.Options(to, "whole" + ending);
  const auto begin = std::chrono::steady_clock::now();
  QuantizeModel(whole);
  const auto taken = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now() - begin);
  const auto want = BytesOf(whole.output);
  RandomStream random(7, "kills " + to);
  int killed = 0;
  for (int output = 0; output < outputs; ++output) {
    const std::string name = StrCat("cut", output, ending);
    const QuantizeOptions options = disturbed.Options(to, name);
    bool done = false;
    for (int kill = 0; kill < kills && !done && !fs::exists(options.output); ++kill) {
      const float share = 1.1f * random.NextUniform();
      done = Ran(options, [&] {
        if (kill == 0) {
          const auto deadline = std::chrono::steady_clock::now() + 10 * taken;
          while (!fs::exists(options.output + ".partial") &&
                 std::chrono::steady_clock::now() < deadline)
            ::usleep(100);
        } else {
          ::usleep(static_cast<useconds_t>(share * static_cast<float>(taken.count())));
        }
      });
      killed += done ? 0 : 1;
    }
    // Killed behind the last step but for the cleaning: the output is whole.
    if (!done && !fs::exists(options.output)) QuantizeModel(options);
    EXPECT_TRUE(BytesOf(options.output) == want) << name;
    EXPECT_THROW(QuantizeModel(options), InputError);  // It exists.
    EXPECT_TRUE(disturbed.Leftovers(name).empty()) << disturbed.Leftovers(name).front();
    fs::remove_all(options.output);
  }
  EXPECT_GT(killed, outputs / 2);
}

TEST(QuantizeKillSlowTest, FoldersEndWithTheSameBytes) { KillAndGoOn("int4", "", 15, 6); }

TEST(QuantizeKillSlowTest, GgufFilesEndWithTheSameBytes) { KillAndGoOn("q4_k_m", ".gguf", 25, 3); }

// One kill in the quick tests, too.
TEST(QuantizeKillTest, OneKill) { KillAndGoOn("int8", "", 2, 2); }

// A file may grow to a part of what is needed: within a layer, and in the folder or file itself.
TEST(QuantizeDiskTest, AFullDiskLeavesNoFinalName) {
  const Disturbed disturbed;
  struct Case {
    const char *to, *name;
    rlim_t limit;
    bool keeps_layers;
  };
  for (const Case& c : {Case{"int8", "in-a-layer", 100'000, false},
                        {"int8", "in-the-folder", 600'000, true},
                        {"q8_0", "file.gguf", 300'000, false}}) {
    QuantizeOptions options = disturbed.Options(c.to, c.name);
    options.calibration = "";
    try {
      const testing::FileSizeLimit full(c.limit);
      QuantizeModel(options);
      ADD_FAILURE() << c.name << " was written to a full disk";
    } catch (const ResourceError& error) {
      EXPECT_NE(std::string(error.what()).find(c.name), std::string::npos) << error.what();
    }
    EXPECT_FALSE(fs::exists(options.output)) << c.name;
    EXPECT_EQ(disturbed.Leftovers(c.name).size(), c.keeps_layers ? 1u : 0u) << c.name;
    QuantizeModel(options);
    VerifyOptions verify;
    verify.output = options.output;
    EXPECT_NO_THROW(VerifyQuantized(verify));
    EXPECT_TRUE(disturbed.Leftovers(c.name).empty()) << c.name;
  }
}

// Two processes on one output: the second is told so, and the first's work stays.
TEST(QuantizeDiskTest, OneProcessAtATime) {
  const Disturbed disturbed;
  for (const char* to : {"int8", "q8_0"}) {
    const QuantizeOptions options = disturbed.Options(to, StrCat("out-", to));
    fs::create_directories(options.output + ".partial");
    const FileLock lock(options.output + ".partial/lock");
    EXPECT_THROW(QuantizeModel(options), ResourceError) << to;
    EXPECT_TRUE(fs::exists(options.output + ".partial/lock")) << to;
  }
}

}  // namespace
}  // namespace tern::ptq
