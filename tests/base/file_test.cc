// Files that survive a crash: replacement is whole or not at all (also on a full disk), mappings
// and reads agree, a folder lock keeps a second process out and goes with its holder, however that
// ends.
#include "base/file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <utility>

#include "base/error.h"
#include "tests/testing/temp_folder.h"

namespace tern {
namespace {

namespace fs = std::filesystem;
using testing::TempFolder;

std::string BytesOf(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

int64_t CountEntries(const std::string& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

TEST(FileTest, WritesReadsAndMapsBytesOfAnySize) {
  const TempFolder folder;
  for (const size_t size : {0u, 1u, 4095u, 4096u, 100'001u}) {
    std::string bytes(size, '\0');
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 7);
    WriteFileAtomically(folder / "f", bytes);
    EXPECT_EQ(ReadFile(folder / "f"), bytes);
    EXPECT_EQ(BytesOf(MappedFile(folder / "f")), bytes);
  }
  EXPECT_EQ(CountEntries(folder.path()), 1);  // No temporary name stays.
}

// Without a writer, opening a pipe waits for one.
TEST(FileTest, PipesAreRefusedAtOnce) {
  const TempFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THROW(ReadFile(folder / "pipe"), InputError);
  EXPECT_THROW(MappedFile(folder / "pipe"), InputError);
}

TEST(FileTest, MappingMoves) {
  const TempFolder folder;
  WriteFileAtomically(folder / "f", "abc");
  MappedFile first(folder / "f");
  MappedFile second(std::move(first));
  EXPECT_EQ(BytesOf(second), "abc");
  WriteFileAtomically(folder / "g", "defg");
  second = MappedFile(folder / "g");
  EXPECT_EQ(BytesOf(second), "defg");
  EXPECT_EQ(second.path(), folder / "g");
}

TEST(FileTest, AMappingOutlivesTheReplacementOfItsFile) {
  const TempFolder folder;
  WriteFileAtomically(folder / "f", "old");
  const MappedFile mapped(folder / "f");
  WriteFileAtomically(folder / "f", "new and longer");
  EXPECT_EQ(BytesOf(mapped), "old");
  EXPECT_EQ(ReadFile(folder / "f"), "new and longer");
}

TEST(FileTest, WhatCannotBeReadIsAnInputError) {
  const TempFolder folder;
  EXPECT_THROW(ReadFile(folder / "none"), InputError);
  EXPECT_THROW(MappedFile(folder / "none"), InputError);
  EXPECT_THROW(ReadFile(folder.path()), InputError);  // A folder.
  try {
    ReadFile(folder / "none");
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find(folder / "none"), std::string::npos) << error.what();
  }
}

TEST(FileTest, WhatCannotBeWrittenIsAResourceError) {
  const TempFolder folder;
  EXPECT_THROW(WriteFileAtomically(folder / "no/such/folder/f", "x"), ResourceError);
  EXPECT_THROW(AppendLine(folder / "no/such/folder/f", "x"), ResourceError);
  WriteFileAtomically(folder / "f", "x");
  EXPECT_THROW(MakeFolders(folder / "f/below"), ResourceError);
}

TEST(FileTest, AppendsLines) {
  const TempFolder folder;
  AppendLine(folder / "f", "one");
  AppendLine(folder / "f", "");
  AppendLine(folder / "f", "three");
  EXPECT_EQ(ReadFile(folder / "f"), "one\n\nthree\n");
}

TEST(FileTest, MakesFoldersAndTheirParentsOnce) {
  const TempFolder folder;
  MakeFolders(folder / "a/b/c");
  MakeFolders(folder / "a/b/c");
  EXPECT_TRUE(fs::is_directory(folder / "a/b/c"));
}

// A disk that is full: the limit on file sizes makes write() fail with EFBIG as ENOSPC would.
TEST(FileTest, AFailedReplacementKeepsTheOldFileAndNoRest) {
  const TempFolder folder;
  WriteFileAtomically(folder / "f", "the old bytes");
  rlimit old_limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1000, old_limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_THROW(WriteFileAtomically(folder / "f", std::string(5000, 'n')), ResourceError);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  ::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(ReadFile(folder / "f"), "the old bytes");
  EXPECT_EQ(CountEntries(folder.path()), 1);
}

// Runs `body` in a child process and returns its exit status.
template <class Body>
int StatusOfChild(Body body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(FileTest, UnfinishedFilesOfOthersAreRemovedAndNothingElse) {
  TempFolder folder;
  MakeFolders(folder / "exports/hf.unverified.12");
  const char* gone[] = {"a.tmp.1", "exports/b.gguf.unverified.77",
                        "exports/hf.unverified.12/c.tmp.3"};
  const char* kept[] = {"a.tmp", "tmp.1", "a.tmp.x", "exports/b.gguf", "exports/a.tmp.1.txt"};
  for (const char* name : gone) WriteFileAtomically(folder / name, "x");
  for (const char* name : kept) WriteFileAtomically(folder / name, "x");
  RemoveUnfinishedFiles(folder / "");
  for (const char* name : gone) EXPECT_FALSE(std::filesystem::exists(folder / name)) << name;
  EXPECT_FALSE(std::filesystem::exists(folder / "exports/hf.unverified.12"));
  for (const char* name : kept) EXPECT_TRUE(std::filesystem::exists(folder / name)) << name;
}

TEST(FileLockTest, KeepsAnotherProcessOutAndNamesTheHolder) {
  const TempFolder folder;
  const std::string path = folder / "lock";
  const std::string my_pid = std::to_string(::getpid());
  const auto try_lock = [&] {
    try {
      const FileLock lock(path);
      return 0;
    } catch (const ResourceError& error) {
      return std::string(error.what()).find(my_pid) != std::string::npos ? 5 : 6;
    }
  };
  {
    const FileLock lock(path);
    EXPECT_EQ(StatusOfChild(try_lock), 5);
  }
  EXPECT_EQ(StatusOfChild(try_lock), 0);
}

TEST(FileLockTest, GoesWithAKilledHolder) {
  const TempFolder folder;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const FileLock lock(folder / "lock");
    if (::write(ready[1], "x", 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_THROW(FileLock(folder / "lock"), ResourceError);
  ::kill(child, SIGKILL);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_NO_THROW(FileLock(folder / "lock"));
  ::close(ready[0]);
  ::close(ready[1]);
}

}  // namespace
}  // namespace tern
