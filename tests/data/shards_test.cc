// Shards are the same bytes whatever the threads and however often the work was killed; nothing is
// done twice, no document is lost, and shards of other texts or tokenizers are refused.
#include "data/shards.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "data/mapped_tokens.h"
#include "tests/testing/temp_folder.h"
#include "text/train_tokenizer.h"

namespace tern::data {
namespace {

namespace fs = std::filesystem;
using tern::testing::TempFolder;

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

class ShardsTest : public ::testing::Test {
 protected:
  ShardsTest() {
    std::string all;
    RandomStream random(9, "texts");
    for (int file = 0; file < 4; ++file) {
      std::string lines;
      for (int i = 0; i < 150; ++i) {
        std::string text;
        for (uint64_t words = random.NextU64() % 40; words > 0; --words)
          text += "word" + std::to_string(random.NextU64() % 50) + " ";
        lines += "{\"text\": \"" + text + "\", \"id\": " + std::to_string(i) + "}\n";
        texts_.push_back(text);
        all += text;
      }
      Add("part" + std::to_string(file) + ".jsonl", lines);
    }
    texts_.push_back("A plain text file.\nIt is one document.");
    Add("z.txt", texts_.back());
    tokenizer_ = std::make_unique<text::Tokenizer>(text::TrainTokenizer({all}, {280}));
    options_.files = {folder_ / "*.jsonl", folder_ / "*.txt"};
    options_.validation_fraction = 0.2;
    options_.shard_tokens = 9000;
  }
  void Add(const std::string& name, const std::string& bytes) {
    WriteFileAtomically(folder_ / name, bytes);
  }
  // Every file of a folder, but for the lock.
  static std::map<std::string, std::string> Files(const std::string& folder) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.path().filename() != ".lock")
        files[entry.path().filename()] = ReadFile(entry.path());
    }
    return files;
  }
  std::string Refused(const std::string& out, const ShardOptions& options) {
    try {
      MakeShards(out, options, *tokenizer_);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }
  std::vector<int32_t> All(const TokenSource& source, Split split) {
    std::vector<int32_t> ids(static_cast<size_t>(source.NumTokens(split)));
    source.Copy(split, 0, source.NumTokens(split), ids.data());
    return ids;
  }

  TempFolder folder_;
  std::vector<std::string> texts_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  ShardOptions options_;
};

TEST_F(ShardsTest, EveryDocumentIsThereOnceInItsOrder) {
  const ShardTotals totals = MakeShards(folder_ / "out", options_, *tokenizer_);
  const auto shards = OpenShards(folder_ / "out", *tokenizer_);
  EXPECT_GT(totals.shards, 3);
  std::map<Split, std::string> text;
  for (const Split split : kSplits) {
    const std::vector<int32_t> ids = All(*shards, split);
    text[split] = tokenizer_->Decode(ids);
    EXPECT_EQ(ids.front(), tokenizer_->bos_id());
    EXPECT_EQ(ids.back(), tokenizer_->eos_id());
    for (const int64_t at : shards->DocumentsIn(split, 0, INT64_MAX))
      EXPECT_EQ(ids[static_cast<size_t>(at)], tokenizer_->bos_id());
    EXPECT_EQ(shards->TextBytes(split), static_cast<int64_t>(text[split].size()));
  }
  std::map<Split, size_t> at;
  int64_t empty = 0, held_out = 0;
  for (const std::string& want : texts_) {
    if (want.empty()) {
      ++empty;
      continue;
    }
    const bool trains = text[Split::kTrain].compare(at[Split::kTrain], want.size(), want) == 0;
    const Split split = trains ? Split::kTrain : Split::kValidation;
    ASSERT_EQ(text[split].compare(at[split], want.size(), want), 0) << want;
    at[split] += want.size();
    held_out += !trains;
  }
  EXPECT_EQ(at[Split::kTrain], text[Split::kTrain].size());
  EXPECT_EQ(at[Split::kValidation], text[Split::kValidation].size());
  EXPECT_EQ(totals.empty_records, empty);
  // 601 draws of probability 0.2: five standard deviations are 49.
  EXPECT_NEAR(static_cast<double>(totals.validation_documents), 0.2 * 601, 49);
}

TEST_F(ShardsTest, BytesDoNotDependOnThreads) {
  options_.threads = 1;
  MakeShards(folder_ / "one", options_, *tokenizer_);
  options_.threads = 5;
  MakeShards(folder_ / "five", options_, *tokenizer_);
  EXPECT_EQ(Files(folder_ / "one"), Files(folder_ / "five"));
  EXPECT_GT(Files(folder_ / "one").size(), 10u);
}

// A shard less each time, as if the process had been killed behind its first, second, ... shard,
// with and without the files of the next one.
TEST_F(ShardsTest, GoesOnBehindEachFinishedShard) {
  const ShardTotals totals = MakeShards(folder_ / "out", options_, *tokenizer_);
  const auto want = Files(folder_ / "out");
  EXPECT_EQ(MakeShards(folder_ / "out", options_, *tokenizer_).shards_before, totals.shards);
  for (int64_t kept = 0; kept < totals.shards; ++kept) {
    std::string manifest = want.at("manifest.json");
    manifest.replace(manifest.find("\"complete\": true"), 16, "\"complete\": false");
    size_t end = manifest.find("\"shards\": [");
    for (int64_t i = 0; i < kept; ++i) end = manifest.find("\n  }", end + 1);
    end = kept == 0 ? manifest.find('[', end) + 1 : end + 4;
    WriteFileAtomically(folder_ / "out/manifest.json", manifest.substr(0, end) + "]}");
    const std::string next = folder_ / "out" + std::string("/0000") + std::to_string(kept);
    if (kept % 2 == 0) WriteFileAtomically(next + ".train.bin", "rubbish");
    WriteFileAtomically(next + ".train.bin.tmp.1", "rubbish");
    const ShardTotals again = MakeShards(folder_ / "out", options_, *tokenizer_);
    EXPECT_EQ(again.shards_before, kept);
    EXPECT_EQ(Files(folder_ / "out"), want) << kept;
  }
}

// Really killed, at moments that nothing has a say in. The child has no threads of ours before it.
using ShardsSlowTest = ShardsTest;

TEST_F(ShardsSlowTest, KilledAtAnyMomentItReachesTheSameBytes) {
  options_.shard_tokens = 400;
  options_.threads = 2;
  MakeShards(folder_ / "want", options_, *tokenizer_);
  int killed = 0;
  for (int round = 0; round < 12; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        MakeShards(folder_ / "out", options_, *tokenizer_);
      } catch (...) {
        ::_exit(1);
      }
      ::_exit(0);
    }
    ::usleep(static_cast<useconds_t>(2000 + 4000 * round));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    killed += WIFSIGNALED(status);
  }
  EXPECT_GT(killed, 0);
  MakeShards(folder_ / "out", options_, *tokenizer_);
  EXPECT_EQ(Files(folder_ / "out"), Files(folder_ / "want"));
}

TEST_F(ShardsTest, ShardsOfOtherTextsAreRefused) {
  MakeShards(folder_ / "out", options_, *tokenizer_);
  ShardOptions other = options_;
  other.text_field = "body";
  EXPECT_HAS(Refused(folder_ / "out", other), "text_field was \"text\", now \"body\"");
  other = options_;
  other.validation_fraction = 0.1;
  EXPECT_HAS(Refused(folder_ / "out", other), "validation_fraction");
  other = options_;
  other.files.pop_back();
  EXPECT_HAS(Refused(folder_ / "out", other), "is gone");
  Add("part0.jsonl", "{\"text\": \"changed\"}");
  EXPECT_HAS(Refused(folder_ / "out", options_), "part0.jsonl");
  const text::Tokenizer foreign = text::TrainTokenizer({"some other text"}, {270});
  EXPECT_THROW(MakeShards(folder_ / "out", options_, foreign), InputError);
  EXPECT_THROW(OpenShards(folder_ / "out", foreign), FormatError);
  EXPECT_THROW(OpenShards(folder_ / "none", *tokenizer_), InputError);
}

TEST_F(ShardsTest, ABadRecordIsNamedAndWhatIsDoneStays) {
  Add("part2.jsonl", "{\"text\": \"fine\"}\n{\"text\": 3}\n");
  for (const int threads : {1, 4}) {
    options_.threads = threads;
    EXPECT_HAS(Refused(folder_ / "out", options_), "part2.jsonl:2: no text under the key \"text\"");
  }
  const auto before = Files(folder_ / "out").size();
  EXPECT_GT(before, 3u);
  EXPECT_THROW(OpenShards(folder_ / "out", *tokenizer_), FormatError) << "not finished";
  Add("empty.jsonl", "\n");
  options_.files = {folder_ / "empty.jsonl"};
  EXPECT_HAS(Refused(folder_ / "none", options_), "no document");
}

TEST_F(ShardsTest, DamagedShardsAreNamed) {
  MakeShards(folder_ / "out", options_, *tokenizer_);
  const auto files = Files(folder_ / "out");
  const auto refused = [&](const std::string& name, const std::string& bytes) -> std::string {
    WriteFileAtomically(folder_ / "out/" + name, bytes);
    std::string message = "accepted";
    try {
      OpenShards(folder_ / "out", *tokenizer_);
    } catch (const Error& error) {
      message = error.what();
    }
    WriteFileAtomically(folder_ / "out/" + name, files.at(name));
    return message;
  };
  const std::string bin = files.at("00001.train.bin"), manifest = files.at("manifest.json");
  EXPECT_HAS(refused("00001.train.bin", bin.substr(2)), "00001.train");
  EXPECT_HAS(refused("manifest.json", manifest.substr(0, 100)), "manifest.json");
  std::string wrong = manifest;
  wrong.replace(wrong.find("\"tokens\": ") + 10, 1, "9");
  EXPECT_HAS(refused("manifest.json", wrong), "the manifest tells of");
  wrong = manifest;
  wrong.replace(wrong.find("\"version\": 1"), 12, "\"version\": 2");
  EXPECT_HAS(refused("manifest.json", wrong), "version 2");
  EXPECT_EQ(refused("manifest.json", manifest), "accepted");
}

// Text, Megatron and a token side held out, mixed: what a recipe's data.sources become.
TEST_F(ShardsTest, ADatasetMixesTextAndTokenFiles) {
  std::vector<int32_t> ids(2000, 7);
  for (const char* name : {"train", "held"}) {
    MegatronWriter writer(folder_ / name, tokenizer_->vocab_size());
    writer.AddDocument(ids.data(), 2000);
    writer.Commit();
  }
  DatasetOptions options;
  options.shards_folder = folder_ / "shards";
  options.validation_fraction = 0.2;
  options.sources.resize(3);
  options.sources[0].name = "web";
  options.sources[0].files = {folder_ / "*.jsonl"};
  options.sources[0].weight = 3;
  options.sources[1].name = "ids";
  options.sources[1].files = {folder_ / "train.*"};
  options.sources[2].name = "held";
  options.sources[2].files = {folder_ / "held.bin"};
  options.sources[2].split = Split::kValidation;
  const auto prepared = PrepareDataset(options, *tokenizer_);
  EXPECT_EQ(prepared[0].kind, "text");
  EXPECT_EQ(prepared[1].kind, "megatron");
  const auto data = OpenDataset(options, *tokenizer_);
  EXPECT_EQ(data->NumTokens(Split::kTrain), prepared[0].totals.train_tokens + 2000);
  EXPECT_EQ(data->NumTokens(Split::kValidation), prepared[0].totals.validation_tokens + 2000);
  LoaderOptions loader;
  loader.sequence_length = 16;
  loader.sequences_per_step = 8;
  int64_t sevens = 0;
  for (int64_t step = 0; step < 10; ++step) {
    const Batch batch = BatchOfStep(*data, loader, step);
    for (int64_t row = 0; row < 8; ++row) {
      const auto begin = batch.inputs.begin() + row * 16;
      sevens += std::all_of(begin, begin + 16, [](int32_t id) { return id == 7; });
    }
  }
  EXPECT_EQ(sevens, 20) << "one sample in four";
  options.sources[0].files = {folder_ / "*.jsonl", folder_ / "train.bin"};
  EXPECT_THROW(PrepareDataset(options, *tokenizer_), InputError) << "two kinds in one source";
}

}  // namespace
}  // namespace tern::data
