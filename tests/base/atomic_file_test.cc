// AtomicFile: the path is the old file or the new one, whatever happens between.
#include "base/atomic_file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "tests/testing/temp_folder.h"

namespace tern {
namespace {

using testing::TempFolder;

int CountEntries(const std::string& folder) {
  return static_cast<int>(std::distance(std::filesystem::directory_iterator(folder),
                                        std::filesystem::directory_iterator()));
}

TEST(AtomicFileTest, PiecesBecomeOneFileOnCommit) {
  const TempFolder folder;
  const std::string path = folder / "f";
  WriteFileAtomically(path, "old");
  const std::string large(3'000'000, 'x');
  {
    AtomicFile file(path);
    EXPECT_EQ(file.position(), 0);
    file.Write("ab", 2);
    file.Write(nullptr, 0);
    file.Write(large.data(), large.size());
    file.Write("\0z", 2);
    EXPECT_EQ(file.position(), 3'000'004);
    EXPECT_EQ(ReadFile(path), "old");
    file.Commit();
    EXPECT_EQ(ReadFile(path), "ab" + large + std::string("\0z", 2));
  }
  EXPECT_EQ(CountEntries(folder.path()), 1);
}

TEST(AtomicFileTest, WhatALinkLeadsToIsReplaced) {
  const TempFolder folder;
  WriteFileAtomically(folder / "target", "old");
  std::filesystem::create_symlink("target", folder / "link");
  std::filesystem::create_symlink("not there", folder / "dangling");
  WriteFileAtomically(folder / "link", "new");
  WriteFileAtomically(folder / "dangling", "made");
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
  EXPECT_EQ(ReadFile(folder / "target"), "new");
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "dangling"));
  EXPECT_EQ(ReadFile(folder / "not there"), "made");
}

TEST(AtomicFileTest, DevicesPipesAndFoldersAreRefused) {
  const TempFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  std::filesystem::create_directory(folder / "inside");
  std::filesystem::create_symlink("pipe", folder / "link");
  for (const char* name : {"pipe", "inside", "link"}) {
    EXPECT_THROW(AtomicFile{folder / name}, InputError) << name;
    EXPECT_THROW(WriteFileAtomically(folder / name, "x"), InputError) << name;
  }
  EXPECT_TRUE(std::filesystem::is_fifo(folder / "pipe"));
  EXPECT_THROW(AtomicFile{"/dev/null"}, InputError);
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
}

TEST(AtomicFileTest, AnEmptyFileIsAFile) {
  const TempFolder folder;
  AtomicFile(folder / "f").Commit();
  EXPECT_EQ(ReadFile(folder / "f"), "");
}

TEST(AtomicFileTest, WithoutCommitNothingChanges) {
  const TempFolder folder;
  WriteFileAtomically(folder / "f", "old");
  AtomicFile(folder / "f").Write("new", 3);
  AtomicFile(folder / "g").Write("new", 3);
  EXPECT_EQ(ReadFile(folder / "f"), "old");
  EXPECT_EQ(CountEntries(folder.path()), 1);
}

TEST(AtomicFileTest, RefusalsOfTheSystemNameThePath) {
  const TempFolder folder;
  try {
    AtomicFile file(folder / "none/f");
    ADD_FAILURE() << "opened a file in a folder that is not there";
  } catch (const ResourceError& error) {
    EXPECT_NE(std::string(error.what()).find("none/f"), std::string::npos) << error.what();
  }
  // A folder is in the way of the name.
  {
    AtomicFile file(folder / "d");
    MakeFolders(folder / "d/inside");
    EXPECT_THROW(file.Commit(), ResourceError);
  }
  EXPECT_EQ(CountEntries(folder.path()), 1);
}

// A full disk, played by the limit on file sizes.
TEST(AtomicFileTest, AFullDiskLeavesTheOldFile) {
  const TempFolder folder;
  WriteFileAtomically(folder / "f", "old");
  rlimit old_limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1000, old_limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  {
    AtomicFile file(folder / "f");
    const std::string bytes(5000, 'n');
    EXPECT_THROW(file.Write(bytes.data(), bytes.size()), ResourceError);
  }
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  ::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(ReadFile(folder / "f"), "old");
  EXPECT_EQ(CountEntries(folder.path()), 1);
}

// Killed in the middle: the old file is whole, and the leftover does not hinder the next writer.
TEST(AtomicFileTest, AKilledWriterLeavesTheOldFile) {
  const TempFolder folder;
  WriteFileAtomically(folder / "f", "old");
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile file(folder / "f");
    file.Write("new", 3);
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(ReadFile(folder / "f"), "old");
  AtomicFile file(folder / "f");
  file.Write("next", 4);
  file.Commit();
  EXPECT_EQ(ReadFile(folder / "f"), "next");
}

// In a container process numbers repeat: a leftover of the same number is replaced, not appended
// to.
TEST(AtomicFileTest, ALeftoverOfTheSameProcessNumberIsReplaced) {
  const TempFolder folder;
  WriteFileAtomically(StrCat(folder / "f", ".tmp.", ::getpid()), "a leftover that is longer");
  AtomicFile file(folder / "f");
  file.Write("new", 3);
  file.Commit();
  EXPECT_EQ(ReadFile(folder / "f"), "new");
  EXPECT_EQ(CountEntries(folder.path()), 1);
}

}  // namespace
}  // namespace tern
