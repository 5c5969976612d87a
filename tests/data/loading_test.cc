// The sampler reaches every token and knows nothing of batches; the loader's thread stops, fails
// and waits as it should; token files survive full disks and carry any vocabulary.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "data/loader.h"
#include "data/token_file.h"
#include "h5/h5.h"
#include "tests/testing/temp_folder.h"
#include "text/tokenizer.h"

namespace tern::data {
namespace {

using tern::testing::TempFolder;

TokenFile Numbers(int64_t count) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) ids[static_cast<size_t>(i)] = static_cast<int32_t>(i);
  return TokenFile::FromTokens({ids}, {{0, 1, 2}}, count);
}

// Sizes around multiples of T, where an off-by-one would lose the last tokens for good.
TEST(SamplerCoverageTest, EveryTokenIsATargetInSomeEpoch) {
  constexpr int64_t kLength = 8;
  for (int64_t tokens = kLength + 1; tokens < 6 * kLength; ++tokens) {
    const Sampler sampler(tokens, kLength, 5);
    std::set<int64_t> targets;
    for (int64_t i = 0; i < 300 * sampler.windows_per_epoch(); ++i) {
      const int64_t start = sampler.WindowStart(i);
      ASSERT_GE(start, 0);
      ASSERT_LT(start + kLength, tokens);
      for (int64_t t = 1; t <= kLength; ++t) targets.insert(start + t);
    }
    EXPECT_EQ(static_cast<int64_t>(targets.size()), tokens - 1) << tokens << " tokens";
  }
}

TEST(SamplerCoverageTest, WindowsOfAnEpochDoNotOverlap) {
  const Sampler sampler(1000, 7, 9);
  for (int64_t epoch = 0; epoch < 4; ++epoch) {
    std::set<int64_t> starts;
    for (int64_t i = 0; i < sampler.windows_per_epoch(); ++i)
      starts.insert(sampler.WindowStart(epoch * sampler.windows_per_epoch() + i));
    ASSERT_EQ(static_cast<int64_t>(starts.size()), sampler.windows_per_epoch());
    for (auto it = std::next(starts.begin()); it != starts.end(); ++it)
      EXPECT_EQ(*it - *std::prev(it), 7);
  }
}

// Golden, from this code on x86-64: the order is part of what a run folder means, and a change of
// it breaks resumed runs.
TEST(SamplerCoverageTest, TheOrderIsFixed) {
  const Sampler sampler(1000, 16, 42);
  std::vector<int64_t> starts;
  for (int64_t i = 0; i < 8; ++i) starts.push_back(sampler.WindowStart(i));
  EXPECT_EQ(starts, (std::vector<int64_t>{175, 191, 239, 655, 127, 975, 879, 719}));
}

// Halving the batch and doubling the steps reads the same rows: nothing but the index counts.
TEST(LoaderThreadTest, RowsDoNotDependOnTheBatchSize) {
  const TokenFile tokens = Numbers(700);
  LoaderOptions wide, narrow;
  wide.sequence_length = narrow.sequence_length = 9;
  wide.sequences_per_step = 6;
  narrow.sequences_per_step = 2;
  BatchLoader wide_loader(tokens, wide), narrow_loader(tokens, narrow);
  for (int step = 0; step < 20; ++step) {
    const Batch whole = wide_loader.Next();
    std::vector<int32_t> joined;
    for (int part = 0; part < 3; ++part) {
      const Batch rows = narrow_loader.Next();
      joined.insert(joined.end(), rows.inputs.begin(), rows.inputs.end());
    }
    EXPECT_EQ(joined, whole.inputs);
  }
  EXPECT_EQ(wide_loader.next_step(), 20);
}

TEST(LoaderThreadTest, StopsAtAnyMoment) {
  const TokenFile tokens = Numbers(5000);
  LoaderOptions options;
  options.sequence_length = 64;
  for (int taken = 0; taken < 40; ++taken) {
    options.prefetch = taken % 3;  // 0 counts as 1.
    BatchLoader loader(tokens, options);
    for (int i = 0; i < taken % 7; ++i) loader.Next();
    if (taken % 4 == 0) std::this_thread::yield();
  }
}

// Samples of the second step would be beyond int64: the thread's check fails, and Next() says so
// each time instead of waiting for ever.
TEST(LoaderThreadTest, AFailureInTheThreadComesOutOfNext) {
  const TokenFile tokens = Numbers(100);
  LoaderOptions options;
  options.sequence_length = 8;
  options.sequences_per_step = 1;
  options.first_step = INT64_MAX - 1;
  BatchLoader loader(tokens, options);
  EXPECT_EQ(loader.Next().batch, 1);  // The last step there is.
  EXPECT_THROW(loader.Next(), BugError);
  EXPECT_THROW(loader.Next(), BugError);
}

TEST(LoaderThreadTest, RefusesTooLittleTextWithTheWayOut) {
  const TokenFile tokens = Numbers(8);
  LoaderOptions options;
  options.sequence_length = 8;
  try {
    BatchLoader loader(tokens, options);
    FAIL();
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("9"), std::string::npos) << error.what();
  }
}

text::Tokenizer WideTokenizer(int32_t size) {
  text::PieceTable table;
  table.pieces = {"<unk>", "<s>", "</s>"};
  table.types = {text::PieceType::kUnknown, text::PieceType::kControl, text::PieceType::kControl};
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    table.pieces.push_back(name);
    table.types.push_back(text::PieceType::kByte);
  }
  while (static_cast<int32_t>(table.pieces.size()) < size - 1) {
    table.pieces.push_back("filler" + std::to_string(table.pieces.size()));
    table.types.push_back(text::PieceType::kUnused);
  }
  table.pieces.push_back("z");  // The last id is in use.
  table.types.push_back(text::PieceType::kNormal);
  return text::Tokenizer::FromPieces(table);
}

// 65,536 pieces are the most that two bytes hold.
TEST(TokenFileWidthTest, TwoOrFourBytesAToken) {
  const TempFolder folder;
  for (const int32_t size : {300, 65536, 65537}) {
    const text::Tokenizer tokenizer = WideTokenizer(size);
    Corpus corpus;
    corpus.train = {{"a", "zaz"}};
    WriteTokenFile(folder / "a.tokens.h5", corpus, tokenizer, {});
    EXPECT_EQ(
        h5::SizeOf(h5::File::OpenForReading(folder / "a.tokens.h5").Info("/train/tokens").type),
        size <= 65536 ? 2 : 4);
    const TokenFile file = TokenFile::Open(folder / "a.tokens.h5", tokenizer);
    std::vector<int32_t> ids(5);
    file.Copy(Split::kTrain, 0, 5, ids.data());
    EXPECT_EQ(ids, (std::vector<int32_t>{1, size - 1, 3 + 'a', size - 1, 2}));
    EXPECT_EQ(file.NumTokens(Split::kValidation), 0);
    EXPECT_TRUE(file.Documents(Split::kValidation).empty());
  }
}

TEST(TokenFileDiskFullTest, TheOldFileStaysAndNothingElse) {
  const TempFolder folder;
  const std::string path = folder / "a.tokens.h5";
  const text::Tokenizer tokenizer = WideTokenizer(300);
  Corpus corpus;
  corpus.train = {{"a", std::string(100'000, 'z')}};
  WriteTokenFile(path, corpus, tokenizer, {"first", 1});
  rlimit old{};
  ::getrlimit(RLIMIT_FSIZE, &old);
  auto* handler = ::signal(SIGXFSZ, SIG_IGN);
  for (const rlim_t limit : {0, 100, 10'000, 150'000}) {
    const rlimit full{limit, old.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &full);
    EXPECT_THROW(WriteTokenFile(path, corpus, tokenizer, {"second", 2}), ResourceError) << limit;
  }
  ::setrlimit(RLIMIT_FSIZE, &old);
  ::signal(SIGXFSZ, handler);
  EXPECT_EQ(TokenFile::Open(path).recipe(), "first");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()),
                          std::filesystem::directory_iterator()),
            1);
  EXPECT_THROW(WriteTokenFile(folder / "none/a.h5", corpus, tokenizer, {}), ResourceError);
}

// Content that HDF5 cannot know to be wrong: each is refused by our own checks, by name.
TEST(TokenFileCheckTest, InconsistentContentIsRefusedByName) {
  const TempFolder folder;
  const std::string path = folder / "a.tokens.h5";
  const auto message = [&](int64_t version, int64_t vocab, std::vector<uint16_t> tokens,
                           std::vector<int64_t> documents, const std::string& sources) {
    h5::File out = h5::File::Create(path);
    const auto rows = [](const auto& v) { return static_cast<int64_t>(v.size()); };
    for (const std::string split : {"/train", "/validation"}) {
      out.Write(split + "/tokens", h5::Type::kU16, {rows(tokens)}, tokens.data());
      out.Write(split + "/documents", h5::Type::kI64, {rows(documents)}, documents.data());
      out.SetAttribute(split, "text_bytes", int64_t{1});
    }
    out.SetAttribute("/", "format_version", version);
    out.SetAttribute("/", "vocab_size", vocab);
    out.SetAttribute("/", "tokenizer_sha256", std::string(64, 'a'));
    out.SetAttribute("/", "seed", int64_t{1});
    out.Write("/sources", h5::Type::kU8, {rows(sources)}, sources.data());
    out.Write("/recipe", h5::Type::kU8, {0}, "");
    out.Close();
    try {
      TokenFile::Open(path);
    } catch (const FormatError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  const auto names = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_EQ(message(1, 10, {1, 9, 2}, {0}, "[]"), "accepted");
  EXPECT_TRUE(names(message(2, 10, {1, 9, 2}, {0}, "[]"), "version 2"));
  EXPECT_TRUE(names(message(1, 9, {1, 9, 2}, {0}, "[]"), "/train/tokens: token 1"));
  EXPECT_TRUE(names(message(1, 0, {1, 9, 2}, {0}, "[]"), "vocab_size"));
  EXPECT_TRUE(names(message(1, 70000, {1, 9, 2}, {0}, "[]"), "uint32"));
  for (const std::vector<int64_t>& documents :
       {std::vector<int64_t>{}, {1}, {0, 3}, {0, 2, 1}, {0, 1, 1}, {0, -1}}) {
    EXPECT_TRUE(names(message(1, 10, {1, 9, 2}, documents, "[]"), "/train/documents"));
  }
  EXPECT_TRUE(names(message(1, 10, {1, 9, 2}, {0}, "[{}]"), "/sources"));
  EXPECT_TRUE(names(message(1, 10, {1, 9, 2}, {0}, "\xFF"), "/sources"));
  EXPECT_TRUE(names(message(1, 10, {1, 9, 2}, {0}, "{\"a\": 1}"), "/sources"));
}

}  // namespace
}  // namespace tern::data
