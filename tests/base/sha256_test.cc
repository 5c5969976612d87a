// Vectors of FIPS 180-4 (NIST's examples SHA_All) and of RFC 6234; a file hashes like its bytes.
#include "base/sha256.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "tests/testing/temp_folder.h"

namespace tern {
namespace {

// The most memory of this process that was resident at once; -1: the system does not say.
int64_t PeakKib() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    int64_t kib = -1;
    if (word == "VmHWM:" && status >> kib) return kib;
  }
  return -1;
}

TEST(Sha256Test, KnownAnswers) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(Sha256Hex(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256Test, PartsGiveTheHashOfTheWhole) {
  const std::string text(1000, 'x');
  Sha256 hash;
  for (size_t at = 0; at < text.size(); at += 7)
    hash.Update(text.data() + at, std::min<size_t>(7, text.size() - at));
  EXPECT_EQ(hash.HexDigest(), Sha256Hex(text));
}

TEST(Sha256Test, FilesOfSizesAroundThePartSize) {
  const testing::TempFolder folder;
  constexpr size_t kPart = size_t{1} << 20;
  for (const size_t size : {size_t{0}, size_t{1}, kPart - 1, kPart, kPart + 1, 2 * kPart + 17}) {
    std::string bytes(size, '\0');
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 31 + i / 251);
    WriteFileAtomically(folder / "f", bytes);
    EXPECT_EQ(Sha256OfFile(folder / "f"), Sha256Hex(bytes)) << size;
  }
  EXPECT_THROW(Sha256OfFile(folder / "none"), InputError);
}

TEST(Sha256Test, FolderIsItsFilesNamesAndBytes) {
  const testing::TempFolder folder;
  const std::string path = folder.path();
  WriteFileAtomically(path + "/b", "two");
  WriteFileAtomically(path + "/a", "one");
  const std::string hash = Sha256OfPath(path);
  EXPECT_EQ(hash, Sha256Hex("a " + Sha256Hex("one") + "\nb " + Sha256Hex("two") + "\n"));
  EXPECT_EQ(Sha256OfPath(path + "/a"), Sha256Hex("one"));
  WriteFileAtomically(path + "/b", "three");
  EXPECT_NE(Sha256OfPath(path), hash);
}

// A file that is hashed does not count as the process's memory: the most resident at one moment.
TEST(Sha256Test, LargeFilesTakeNoMemory) {
  const testing::TempFolder folder;
  constexpr int64_t kBytes = 64 << 20;
  WriteFileAtomically(folder / "large", "x");
  std::filesystem::resize_file(folder / "large", kBytes);
  std::ofstream("/proc/self/clear_refs") << 5;  // VmHWM becomes what is resident now
  const int64_t before = PeakKib();
  Sha256OfFile(folder / "large");
  EXPECT_LT(PeakKib() - before, kBytes / 1024 / 4);
}

}  // namespace
}  // namespace tern
