// Random damage to a corpus of valid GGUF files (gguf_corpus.h), for as long as one likes:
//   TERN_FUZZ_RUNS=10000000 build/asan/bin/formats_test --gtest_filter='GgufCorpusFuzz.*'
// Run i is a pure function of i, so TERN_FUZZ_BEGIN=i with TERN_FUZZ_RUNS=1 repeats it alone. A
// file must be parsed or refused with FormatError or InputError. Long runs are in
// tests/slow_runs.md.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>

#include "allocation_limit.h"
#include "formats/inspect.h"
#include "gguf_corpus.h"
#include "tests/testing/temp_folder.h"

namespace tern::formats {
namespace {

constexpr int64_t kQuickRuns = 4000;       // Of the suite
constexpr int64_t kReportEvery = 1 << 20;  // Runs
constexpr int64_t kInspectEvery = 128;     // It costs more than parsing
constexpr size_t kLimitBytes = 64 << 20;   // As in fuzz_test.cc

int64_t FromEnvironment(const char* name, int64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoll(text, nullptr, 10);
}

// Numbers that break arithmetic, and those that are small enough to be believed.
uint64_t HostileNumber(RandomStream& random) {
  const uint64_t bits = random.NextU64();
  switch (random.NextU64() % 4) {
    case 0:
      return bits % 40;
    case 1:
      return (uint64_t{1} << (bits % 64)) - bits / 64 % 2;
    case 2:
      return ~uint64_t{0} - bits % 64;
    default:
      return bits;
  }
}

std::string Damaged(const std::vector<std::string>& corpus, int64_t run) {
  RandomStream random(static_cast<uint64_t>(run), "corpus fuzz");
  const auto below = [&](size_t limit) { return static_cast<size_t>(random.NextU64() % limit); };
  std::string bytes = corpus[below(corpus.size())];
  for (size_t change = 0, changes = 1 + below(5); change < changes && !bytes.empty(); ++change) {
    // Most damage to the head, where structure is.
    const size_t at = below(below(4) == 0 ? bytes.size() : std::min<size_t>(bytes.size(), 700));
    const size_t size = 1 + below(24);
    switch (below(7)) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ 1 << below(8));
        break;
      case 1: {
        const uint64_t number = HostileNumber(random);
        const size_t width = below(2) == 0 ? 8 : 4;
        if (at + width <= bytes.size()) std::memcpy(bytes.data() + at, &number, width);
        break;
      }
      case 2:
        bytes.insert(at, bytes.substr(below(bytes.size()), size));
        break;
      case 3:
        bytes.erase(at, size);
        break;
      case 4: {  // The rest of another file
        const std::string& other = corpus[below(corpus.size())];
        bytes.replace(at, std::string::npos, other, std::min(other.size(), at), std::string::npos);
        break;
      }
      case 5:
        bytes[at] = static_cast<char>(random.NextU64());
        break;
      default:
        bytes.resize(at);
    }
  }
  return bytes;
}

// Touches every view that the reader gives out.
void Use(const std::string& path, bool inspect) {
  const GgufReader file(path);
  volatile uint64_t sink = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.bytes.empty()) continue;
    sink = sink + std::to_integer<uint64_t>(tensor.bytes.front()) +
           std::to_integer<uint64_t>(tensor.bytes.back()) + tensor.row(tensor.rows() - 1)[0];
  }
  sink = sink + file.Metadata(4).size();
  if (inspect) (void)InspectText(Inspect(path));
}

// One file that is written again and again: no new inode, nothing synced.
class Scratch {
 public:
  explicit Scratch(const std::string& path)
      : fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    TERN_CHECK(fd_ >= 0, path);
  }
  ~Scratch() { ::close(fd_); }
  void Write(const std::string& bytes) {
    const auto size = static_cast<ssize_t>(bytes.size());
    TERN_CHECK(::pwrite(fd_, bytes.data(), bytes.size(), 0) == size, "short write");
    TERN_CHECK(::ftruncate(fd_, static_cast<off_t>(bytes.size())) == 0, "ftruncate");
  }

 private:
  int fd_;
};

TEST(GgufCorpusFuzz, DamagedFilesAreParsedOrRefused) {
  const int64_t runs = FromEnvironment("TERN_FUZZ_RUNS", kQuickRuns);
  const int64_t begin = FromEnvironment("TERN_FUZZ_BEGIN", 0);
  const tern::testing::TempFolder folder;
  const std::vector<std::string> corpus = testing::GgufCorpus(folder.path());
  ASSERT_GE(corpus.size(), 20u);
  for (const std::string& file : corpus) ASSERT_LT(file.size(), 4000u);
  for (size_t i = 0; i < corpus.size(); ++i)
    Use(folder / StrCat(i, ".gguf"), /*inspect=*/true);  // All of it is valid
  const std::string path = folder / "damaged.gguf";
  Scratch scratch(path);
  int64_t accepted = 0;
  for (int64_t run = begin; run < begin + runs; ++run) {
    scratch.Write(Damaged(corpus, run));
    const testing::AllocationLimit limit(kLimitBytes);
    try {
      Use(path, run % kInspectEvery == 0);
      ++accepted;
    } catch (const FormatError&) {
    } catch (const InputError&) {
    } catch (...) {
      ADD_FAILURE() << "run " << run << " ended in another error";
      throw;
    }
    if ((run + 1) % kReportEvery == 0) std::cerr << run + 1 << " runs\n";
  }
  std::cerr << runs << " runs from " << begin << ": " << accepted << " accepted\n";
  if (runs >= kQuickRuns) {  // Both ways are taken
    EXPECT_GT(accepted, runs / 20);
    EXPECT_LT(accepted, runs * 19 / 20);
  }
}

}  // namespace
}  // namespace tern::formats
