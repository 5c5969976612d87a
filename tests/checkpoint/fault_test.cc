// What a run must survive: a writer killed at random moments, a full disk, a damaged byte anywhere
// in a checkpoint.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/manifest.h"
#include "tests/checkpoint/sample.h"
#include "tests/testing/file_size_limit.h"
#include "tests/testing/temp_folder.h"

namespace tern::checkpoint {
namespace {

namespace fs = std::filesystem;
using testing::FileSizeLimit;
using testing::TempFolder;

void SleepMicroseconds(uint64_t microseconds) {
  const timespec time{static_cast<time_t>(microseconds / 1'000'000),
                      static_cast<long>(microseconds % 1'000'000) * 1000};
  ::nanosleep(&time, nullptr);
}

// Writes checkpoint after checkpoint from `first_step` on, two kept, until it is killed.
[[noreturn]] void WriteForever(const std::string& folder, int64_t first_step) {
  try {
    for (int64_t step = first_step;; ++step) {
      WriteSample(folder, step);
      ApplyRetention(folder, {2, ""});
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "writer: %s\n", error.what());
    ::_exit(1);
  }
}

// The delays are random but seeded; where in a write they fall differs from run to run, and the
// claim holds anywhere.
TEST(CheckpointKillTest, WhateverTheMomentTheNewestIsWholeAndNothingGoesBack) {
  const TempFolder folder;
  RandomStream delays(42, "kill");
  WriteSample(folder.path(), 1);
  int64_t newest = 1;
  int leftovers = 0;
  // At least 20 kills, and on a slow machine as many more as it takes to hit a writer at work; 500
  // is a broken writer.
  for (int kill = 0; kill < 20 || ((newest <= 5 || leftovers == 0) && kill < 500); ++kill) {
    const pid_t child = ::fork();
    if (child == 0) WriteForever(folder.path(), newest + 1);
    SleepMicroseconds(delays.NextU64() % 60'000);
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the writer failed by itself";
    const Found found = FindNewestValid(folder.path());
    ASSERT_TRUE(found.path);
    for (const Refused& refused : found.refused)
      ADD_FAILURE() << refused.path << ": " << refused.reason;
    EXPECT_GE(found.step, newest);
    newest = found.step;
    Sample(newest).ExpectEqual(CheckpointReader(*found.path));
    leftovers += RemoveLeftovers(folder.path()) > 0 ? 1 : 0;
  }
  EXPECT_GT(newest, 5) << "the writer hardly ran: no kill hit it at work";
  EXPECT_GT(leftovers, 0) << "no kill hit a write in progress";
}

TEST(CheckpointDiskFullTest, TheOneBeforeStaysTheNewestAndNoPartStays) {
  const TempFolder folder;
  WriteSample(folder.path(), 1);
  const auto whole = static_cast<rlim_t>(fs::file_size(folder / "step-00000001/state.h5"));
  for (const rlim_t limit :
       {rlim_t{0}, rlim_t{1}, rlim_t{100}, rlim_t{1000}, whole / 2, whole - 1}) {
    {
      const FileSizeLimit full(limit);
      EXPECT_THROW(WriteSample(folder.path(), 2), ResourceError) << limit;
    }
    const Found found = FindNewestValid(folder.path());
    EXPECT_EQ(found.step, 1) << limit;
    EXPECT_TRUE(found.refused.empty());
    EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1)
        << limit;
  }
  WriteSample(folder.path(), 2);  // Room again: the library has not been hurt.
  EXPECT_EQ(FindNewestValid(folder.path()).step, 2);
}

TEST(CheckpointDiskFullTest, AFolderThatCannotBeMadeIsAResourceError) {
  const TempFolder folder;
  WriteFileAtomically(folder / "run", "a file");
  EXPECT_THROW(WriteSample(folder / "run", 1), ResourceError);
}

// Writes `bytes` over `path` in place. Not truncated to nothing first: ext4 would then sync the
// file when it is closed, which is slow, and nothing here needs it to survive a crash.
void Overwrite(const std::string& path, std::string_view bytes) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(::pwrite(fd, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  ASSERT_EQ(::ftruncate(fd, static_cast<off_t>(bytes.size())), 0);
  ASSERT_EQ(::close(fd), 0);
}

// The newer checkpoint's file `name` holds `bytes`: it must be refused by name and the older one
// chosen.
void ExpectRefused(const TempFolder& folder, const std::string& name, const std::string& bytes) {
  Overwrite(folder / ("step-00000002/" + name), bytes);
  const Found found = FindNewestValid(folder.path());
  ASSERT_EQ(found.step, 1);
  ASSERT_EQ(found.refused.size(), 1u);
  ASSERT_NE(found.refused[0].reason.find("step-00000002"), std::string::npos)
      << found.refused[0].reason;
}

class CheckpointFuzzTest : public ::testing::TestWithParam<const char*> {
 protected:
  CheckpointFuzzTest() {
    WriteSample(folder_.path(), 1);
    WriteSample(folder_.path(), 2, 1.5);
    bytes_ = ReadFile(folder_ / StrCat("step-00000002/", GetParam()));
  }

  TempFolder folder_;
  std::string bytes_;
};

TEST_P(CheckpointFuzzTest, TruncatedAtAnyByte) {
  const size_t stride = bytes_.size() / 500 + 1;
  for (size_t size = 0; size < bytes_.size(); size += stride) {
    ASSERT_NO_FATAL_FAILURE(ExpectRefused(folder_, GetParam(), bytes_.substr(0, size))) << size;
  }
  ASSERT_NO_FATAL_FAILURE(ExpectRefused(folder_, GetParam(), bytes_.substr(0, bytes_.size() - 1)));
  ASSERT_NO_FATAL_FAILURE(ExpectRefused(folder_, GetParam(), bytes_ + '\0'));
}

TEST_P(CheckpointFuzzTest, FlippedBits) {
  const RandomStream stream(7, "flips");
  for (uint64_t i = 0; i < 500; ++i) {
    const uint64_t bit = stream.At(i) % (bytes_.size() * 8);
    std::string damaged = bytes_;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    ASSERT_NO_FATAL_FAILURE(ExpectRefused(folder_, GetParam(), damaged)) << bit;
  }
  Overwrite(folder_ / StrCat("step-00000002/", GetParam()), bytes_);
  EXPECT_EQ(FindNewestValid(folder_.path()).step, 2);
}

INSTANTIATE_TEST_SUITE_P(Files, CheckpointFuzzTest, ::testing::Values("manifest.json", "state.h5"));

Manifest SampleManifest() {
  return {600,
          "train",
          {{"validation_loss", 3.25}, {"x", 0.1}},
          {{"state.h5", 81'264, std::string(64, 'a')}}};
}

TEST(ManifestFuzzTest, AnyFlippedBitAndAnyTruncationIsRefused) {
  const std::string text = SerializeManifest(SampleManifest());
  EXPECT_EQ(ParseManifest(text, "m").files.at(0).size_bytes, 81'264);
  for (size_t bit = 0; bit < text.size() * 8; ++bit) {
    std::string damaged = text;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    EXPECT_THROW(ParseManifest(damaged, "m"), FormatError) << bit;
  }
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_THROW(ParseManifest(text.substr(0, size), "m"), FormatError) << size;
  }
}

// Manifests that are whole by their own checksum but were made by something else: names that leave
// the folder, no state.
TEST(ManifestFuzzTest, AManifestThatListsWhatItMustNotIsRefused) {
  for (const char* name : {"", "../state.h5", "a/b", "/etc/passwd", ".hidden"}) {
    Manifest manifest = SampleManifest();
    manifest.files.push_back({name, 1, std::string(64, 'b')});
    EXPECT_THROW(ParseManifest(SerializeManifest(manifest), "m"), FormatError) << name;
  }
  Manifest stateless = SampleManifest();
  stateless.files[0].name = "other.h5";
  EXPECT_THROW(ParseManifest(SerializeManifest(stateless), "m"), FormatError);
  Manifest negative = SampleManifest();
  negative.step = -1;
  EXPECT_THROW(ParseManifest(SerializeManifest(negative), "m"), FormatError);
}

}  // namespace
}  // namespace tern::checkpoint
