// Full disks, killed writers, torn and damaged files: a typed error each time, no crash, and the
// library works on afterwards.
#include <gtest/gtest.h>
#include <hdf5.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "h5/h5.h"
#include "tests/h5/sample_file.h"
#include "tests/testing/file_size_limit.h"
#include "tests/testing/hdf5_leaks.h"
#include "tests/testing/temp_folder.h"

namespace tern::h5 {
namespace {

using tern::testing::FileSizeLimit;
using tern::testing::TempFolder;

// Makes the file anew. Without a sync, which is slow: nothing here needs it to survive a crash.
void WriteBytes(const std::string& path, std::string_view bytes) {
  std::filesystem::remove(path);
  std::ofstream(path, std::ios::binary) << bytes;
}

// Ids of files, datasets, types and attributes that are still open.
int64_t OpenIds() { return H5Fget_obj_count(static_cast<hid_t>(H5F_OBJ_ALL), H5F_OBJ_ALL); }

int64_t OpenDescriptors() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                       std::filesystem::directory_iterator());
}

TEST(H5DiskFullTest, EveryLimitGivesAResourceErrorAndTheLibraryWorksOn) {
  const TempFolder folder;
  const std::string path = folder / "a.h5";
  WriteSampleFile(path);
  ReadSampleFile(path);
  const rlim_t whole = static_cast<rlim_t>(ReadFile(path).size());
  const int64_t ids_before = OpenIds(), descriptors_before = OpenDescriptors();
  for (rlim_t limit = 0; limit < whole; limit += 97) {
    const FileSizeLimit full(limit);
    try {
      WriteSampleFile(path);
      ADD_FAILURE() << "no error at " << limit << " of " << whole;
    } catch (const ResourceError& error) {
      EXPECT_NE(std::string(error.what()).find("File too large"), std::string::npos)
          << "the system's words: " << error.what();
    }
  }
  EXPECT_EQ(OpenIds(), ids_before) << "files that could not be closed stay open for ever";
  EXPECT_EQ(OpenDescriptors(), descriptors_before);
  WriteSampleFile(path);
  ReadSampleFile(path);
}

TEST(H5DiskFullTest, ALargeWriteFailsAtOnceAndTheDestructorIsQuiet) {
  const TempFolder folder;
  const std::vector<float> values(1 << 20);
  const FileSizeLimit full(1 << 16);
  File file = File::Create(folder / "a.h5");
  EXPECT_THROW(file.Write("/v", Type::kF32, {1 << 20}, values.data()), ResourceError);
  EXPECT_THROW(file.Write("/w", Type::kF32, {4}, values.data()), ResourceError) << "stays lost";
  EXPECT_THROW(file.Close(), ResourceError);
}

// HDF5's own clean-up at exit is where a file that could not be closed used to crash.
TEST(H5DiskFullTest, AProcessThatMetAFullDiskExitsNormally) {
  const TempFolder folder;
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const FileSizeLimit full(4096);
    try {
      static File* const leaked = new File(File::Create(folder / "b.h5"));  // Open at exit.
      leaked->SetAttribute("/", "key", int64_t{1});
      WriteSampleFile(folder / "a.h5");
    } catch (const ResourceError&) {
      std::exit(5);
    }
    std::exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 5);
}

TEST(H5KillTest, AFileThatAKilledWriterLeftIsRefused) {
  const TempFolder folder;
  const std::string path = folder / "a.h5";
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    File file = File::Create(path);
    const std::vector<float> values(1 << 20, 1.0f);
    file.Write("/v", Type::kF32, {1 << 20}, values.data());
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_THROW(File::OpenForReading(path), FormatError);
}

// Every length but the whole one is refused when opened: the stored end of file tells.
TEST(H5Fuzz, TruncatedFilesAreRefused) {
  const TempFolder folder;
  const std::string path = folder / "a.h5";
  WriteSampleFile(path);
  const std::string bytes = ReadFile(path);
  for (size_t size = 0; size < bytes.size(); size += 1 + size / 64) {
    WriteBytes(path, std::string_view(bytes).substr(0, size));
    EXPECT_THROW(ReadSampleFile(path), FormatError) << size << " of " << bytes.size();
  }
}

// Checksums cover metadata and chunks: a flipped bit is found or does no harm (free space), and
// never gives other values (ReadSampleFile compares).
TEST(H5Fuzz, FlippedBitsAreFoundOrHarmless) {
  const TempFolder folder;
  const std::string path = folder / "a.h5";
  WriteSampleFile(path);
  const std::string bytes = ReadFile(path);
  RandomStream random(1, "fuzz");
  size_t found = 0, tried = 0;
  for (size_t at = 0; at < bytes.size(); at += 1 + random.NextU64() % 3) {
    std::string damaged = bytes;
    damaged[at] ^= static_cast<char>(1u << random.NextU64() % 8);
    WriteBytes(path, damaged);
    ++tried;
    try {
      ReadSampleFile(path);
    } catch (const FormatError&) {
      ++found;
    }
  }
  EXPECT_GT(found, tried / 2) << "data and metadata are most of the file";
}

// Several damaged places at once get past single checksums of the superblock and reach deeper code.
TEST(H5Fuzz, ManyFlippedBitsDoNoHarm) {
  const TempFolder folder;
  const std::string path = folder / "a.h5";
  WriteSampleFile(path);
  ReadSampleFile(path);
  const int64_t open_before = OpenIds();  // The half precision type lives for ever.
  const std::string bytes = ReadFile(path);
  RandomStream random(2, "fuzz");
  for (int round = 0; round < 300; ++round) {
    std::string damaged = bytes;
    for (int flips = 0; flips < 8; ++flips) {
      damaged[48 + random.NextU64() % (damaged.size() - 48)] = static_cast<char>(random.NextU64());
    }
    WriteBytes(path, damaged);
    try {
      File::OpenForReading(path).ListDatasets();
      ReadSampleFile(path);
    } catch (const FormatError&) {  // Refused: that is what is wanted.
    }
    ASSERT_EQ(OpenIds(), open_before) << round;
  }
}

}  // namespace
}  // namespace tern::h5
