// Corpora, token files, sampling and loading: what a step reads is a pure function of seed and
// step, and a damaged or foreign file is refused by name.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "data/corpus.h"
#include "data/loader.h"
#include "data/token_file.h"
#include "tests/testing/hdf5_leaks.h"
#include "tests/testing/temp_folder.h"
#include "text/train_tokenizer.h"

namespace tern::data {
namespace {

using tern::testing::TempFolder;

TokenFile Numbers(int64_t train, int64_t documents = 1) {
  std::vector<std::vector<int32_t>> split(static_cast<size_t>(documents));
  for (int64_t i = 0; i < train; ++i)
    split[static_cast<size_t>(i * documents / train)].push_back(static_cast<int32_t>(i));
  return TokenFile::FromTokens(split, {{1, 2, 3, 4, 5, 6, 7}}, train);
}

TEST(SamplerTest, AnEpochVisitsEveryWindowOnce) {
  for (const int64_t tokens : {17, 33, 100, 1001}) {
    const Sampler sampler(tokens, 16, 3);
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      std::set<int64_t> starts;
      for (int64_t i = 0; i < sampler.windows_per_epoch(); ++i) {
        const int64_t start = sampler.WindowStart(epoch * sampler.windows_per_epoch() + i);
        EXPECT_GE(start, 0);
        EXPECT_LE(start + 16, tokens - 1);
        starts.insert(start);
      }
      EXPECT_EQ(static_cast<int64_t>(starts.size()), sampler.windows_per_epoch());
    }
  }
  EXPECT_THROW(Sampler(16, 16, 1), InputError) << "a window needs T + 1 tokens";
}

TEST(SamplerTest, SeedsAndEpochsDiffer) {
  const Sampler a(10000, 16, 1), b(10000, 16, 2);
  int same = 0, repeated = 0;
  for (int64_t i = 0; i < 100; ++i) {
    same += a.WindowStart(i) == b.WindowStart(i);
    repeated += a.WindowStart(i) == a.WindowStart(i + a.windows_per_epoch());
    EXPECT_EQ(a.WindowStart(i), Sampler(10000, 16, 1).WindowStart(i));
  }
  EXPECT_LT(same, 10);
  EXPECT_LT(repeated, 10);
}

TEST(LoaderTest, EqualsTheBatchOfTheStepFromAnyStart) {
  const TokenFile tokens = Numbers(500);
  LoaderOptions options;
  options.sequence_length = 8;
  options.sequences_per_step = 6;
  for (const int64_t first : {0, 1, 37}) {
    options.first_step = first;
    BatchLoader loader(tokens, options);
    for (int64_t step = first; step < first + 12; ++step) {
      const Batch batch = loader.Next(), want = BatchOfStep(tokens, options, step);
      EXPECT_EQ(batch.inputs, want.inputs);
      EXPECT_EQ(batch.Hash(), want.Hash());
    }
  }
}

TEST(LoaderTest, MicroBatchesAreTheRowsOfTheStep) {
  const TokenFile tokens = Numbers(500);
  LoaderOptions options;
  options.sequence_length = 8;
  options.sequences_per_step = 6;
  const Batch whole = BatchOfStep(tokens, options, 5);
  std::vector<int32_t> joined;
  for (int64_t j = 0; j < 3; ++j) {
    const Batch part = MicroBatch(whole, j, 3);
    joined.insert(joined.end(), part.inputs.begin(), part.inputs.end());
  }
  EXPECT_EQ(joined, whole.inputs);
  for (size_t i = 0; i < whole.inputs.size(); ++i) EXPECT_EQ(whole.targets[i], whole.inputs[i] + 1);
}

TEST(BatchTest, PackedDocumentsRestartAndHideTheBorder) {
  const TokenFile tokens = Numbers(20, 2);  // Documents 0..9 and 10..19
  const Batch batch = MakeBatch(tokens, Split::kTrain, {6}, 8, Packing::kDocuments);
  EXPECT_EQ(batch.positions, (std::vector<int32_t>{0, 1, 2, 3, 0, 1, 2, 3}));
  EXPECT_EQ(batch.document_ids, (std::vector<int32_t>{0, 0, 0, 0, 1, 1, 1, 1}));
  EXPECT_EQ(batch.targets, (std::vector<int32_t>{7, 8, 9, -1, 11, 12, 13, 14}));
}

TEST(BatchTest, EvalWindowsPredictEveryTokenButTheFirstOnce) {
  const TokenFile tokens = Numbers(100);
  for (const int64_t t : {1, 3, 6, 7, 50}) {
    int64_t predicted = 0;
    const auto windows = EvalWindows(tokens, Split::kValidation, t);
    for (const EvalWindow& window : windows) predicted += window.targets;
    EXPECT_EQ(predicted, 6);
    const Batch batch = MakeEvalBatch(tokens, Split::kValidation, windows, 0,
                                      static_cast<int64_t>(windows.size()), t);
    EXPECT_EQ(std::count_if(batch.targets.begin(), batch.targets.end(),
                            [](int32_t id) { return id >= 0; }),
              6);
  }
  EXPECT_THROW(EvalWindows(TokenFile::FromTokens({{1, 2}}, {{1}}, 5), Split::kValidation, 4),
               InputError);
}

class CorpusTest : public ::testing::Test {
 protected:
  std::string Add(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
    return folder_ / name;
  }
  TempFolder folder_;
};

TEST_F(CorpusTest, SplitsByWholeDocumentsAndSeed) {
  for (int i = 0; i < 10; ++i)
    Add("d" + std::to_string(i) + ".txt", std::string(1000, static_cast<char>('a' + i)));
  CorpusOptions options;
  options.files = {folder_ / "*.txt"};
  options.validation_fraction = 0.2;
  const Corpus corpus = LoadCorpus(options), again = LoadCorpus(options);
  ASSERT_EQ(corpus.validation.size(), 2u);
  EXPECT_EQ(corpus.train.size(), 8u);
  EXPECT_EQ(corpus.validation[0].name, again.validation[0].name);
  EXPECT_EQ(corpus.sources.size(), 10u);
  bool differs = false;
  for (options.seed = 1; options.seed < 6; ++options.seed) {
    differs |= LoadCorpus(options).validation[0].name != corpus.validation[0].name;
  }
  EXPECT_TRUE(differs);
  options.validation_files = {folder_ / "d3.txt"};
  EXPECT_EQ(LoadCorpus(options).validation[0].name, folder_ / "d3.txt");
}

TEST_F(CorpusTest, OneDocumentIsCutAtAParagraph) {
  const std::string path = Add("one.txt", std::string(80, 'a') + "\n\n" + std::string(20, 'b'));
  CorpusOptions options;
  options.files = {path};
  const Corpus corpus = LoadCorpus(options);
  EXPECT_EQ(corpus.train[0].text, std::string(80, 'a') + "\n\n");
  EXPECT_EQ(corpus.validation[0].text, std::string(20, 'b'));
  EXPECT_EQ(corpus.notes.size(), 1u);
}

TEST_F(CorpusTest, BadTextIsNamedWithItsByte) {
  CorpusOptions options;
  const auto message = [&](const std::string& text) -> std::string {
    options.files = {Add("bad.txt", text)};
    try {
      LoadCorpus(options);
    } catch (const InputError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_NE(message("").find("is empty"), std::string::npos);
  EXPECT_NE(message("ab\xFFz").find("byte 2"), std::string::npos);
  EXPECT_NE(message(std::string("ab\0z", 4)).find("NUL"), std::string::npos);
  options.files = {folder_ / "nothing*"};
  EXPECT_THROW(LoadCorpus(options), InputError);
  options.files = {folder_.path()};
  EXPECT_THROW(LoadCorpus(options), InputError);
}

class TokenFileTest : public CorpusTest {
 protected:
  TokenFileTest() {
    std::string text;
    for (int i = 0; i < 300; ++i) text += "line " + std::to_string(i) + " of a small corpus\n";
    corpus_.train = {{"a", text}, {"b", "another document"}};
    corpus_.validation = {{"c", "held out text"}};
    corpus_.sources = {{"a", 10, "aa"}, {"b", 20, "bb"}};
    tokenizer_ = std::make_unique<text::Tokenizer>(text::TrainTokenizer({text}, {300}));
    path_ = folder_ / "x.tokens.h5";
    WriteTokenFile(path_, corpus_, *tokenizer_, {"recipe: text", 7});
  }
  Corpus corpus_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  std::string path_;
};

TEST_F(TokenFileTest, HoldsWhatWasWritten) {
  const TokenFile file = TokenFile::Open(path_, *tokenizer_);
  std::vector<int32_t> ids(static_cast<size_t>(file.NumTokens(Split::kTrain)));
  file.Copy(Split::kTrain, 0, file.NumTokens(Split::kTrain), ids.data());
  ASSERT_EQ(file.Documents(Split::kTrain).size(), 2u);
  EXPECT_EQ(ids.front(), tokenizer_->bos_id());
  EXPECT_EQ(ids.back(), tokenizer_->eos_id());
  EXPECT_EQ(ids[static_cast<size_t>(file.Documents(Split::kTrain)[1])], tokenizer_->bos_id());
  EXPECT_EQ(tokenizer_->Decode(ids), corpus_.train[0].text + corpus_.train[1].text);
  EXPECT_EQ(file.TextBytes(Split::kValidation), 13);
  EXPECT_EQ(file.recipe(), "recipe: text");
  EXPECT_EQ(file.sources()[1].sha256, "bb");
  EXPECT_EQ(file.seed(), 7);
}

TEST_F(TokenFileTest, OfAnotherTokenizerIsRefusedWithBothHashes) {
  const text::Tokenizer other = text::TrainTokenizer({corpus_.train[0].text}, {290});
  try {
    TokenFile::Open(path_, other);
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find(other.sha256()), std::string::npos);
    EXPECT_NE(std::string(error.what()).find(tokenizer_->sha256()), std::string::npos);
  }
  EXPECT_THROW(TokenFile::Open(folder_ / "missing.h5"), InputError);
}

using TokenFileFuzz = TokenFileTest;

TEST_F(TokenFileFuzz, DamagedFilesAreRefusedOrRead) {
  const std::string bytes = ReadFile(path_);
  RandomStream random(1, "fuzz");
  for (int round = 0; round < 150; ++round) {
    std::string damaged = bytes;
    if (round % 3 == 0) damaged.resize(random.NextU64() % bytes.size());
    if (!damaged.empty())
      damaged[random.NextU64() % damaged.size()] ^= static_cast<char>(1u << random.NextU64() % 8);
    WriteFileAtomically(path_, damaged);
    try {
      TokenFile::Open(path_);
    } catch (const Error&) {  // Refused: that is what is wanted.
    }
  }
}

}  // namespace
}  // namespace tern::data
