// Instruction data: which tokens count, records that are refused, labels that survive shards and
// kills, and samples of whole documents without a word from one in the other.
#include "data/instruction.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "data/mixture.h"
#include "data/packed_samples.h"
#include "data/shards.h"
#include "data/token_file.h"
#include "tests/testing/temp_folder.h"
#include "text/train_tokenizer.h"

namespace tern::data {
namespace {

using tern::testing::TempFolder;

constexpr const char* kTemplate =
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}.\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}";
constexpr const char* kTalk =
    R"({"messages": [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"},
        {"role": "user", "content": "two one"}, {"role": "assistant", "content": "four five"}]})";
constexpr const char* kPair = R"({"prompt": "one two ", "completion": "three four"})";

const text::Tokenizer& Words() {
  static const text::Tokenizer tokenizer = text::TrainTokenizer(
      {"one two three four five [user] [assistant] one two three. four five."}, {300});
  return tokenizer;
}

InstructionOptions Options(RecordKind kind) {
  InstructionOptions options;
  options.kind = kind;
  if (kind == RecordKind::kMessages) options.chat.emplace(kTemplate, "", "");
  return options;
}

// The text of the tokens that count.
std::string Counted(const LabelledTokens& encoded) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < encoded.tokens.size(); ++i)
    if (encoded.labels[i] != 0) ids.push_back(encoded.tokens[i]);
  return Words().Decode(ids);
}

template <class Error>
std::string Refused(const std::string& record, const InstructionOptions& options) {
  try {
    EncodeInstruction(record, options, Words(), "chat.jsonl:7");
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "not refused: " << record;
  return "";
}

TEST(InstructionTest, AnswersCountAndPromptsDoNot) {
  const LabelledTokens talk =
      EncodeInstruction(kTalk, Options(RecordKind::kMessages), Words(), "here");
  EXPECT_EQ(talk.text,
            "[user] one two.\n[assistant] three.\n[user] two one.\n[assistant] four five.\n");
  EXPECT_EQ(talk.tokens, Words().EncodeWithSpecial(talk.text));
  // "] " and "three" meet in one token, " three", which counts.
  EXPECT_EQ(Counted(talk), " three.\n four five.\n");
  const LabelledTokens pair =
      EncodeInstruction(kPair, Options(RecordKind::kCompletion), Words(), "here");
  EXPECT_EQ(pair.tokens, DocumentTokens("one two three four", Words()));
  EXPECT_EQ(Counted(pair), " three four");
  EXPECT_EQ(pair.labels.back(), 1);  // EOS
  InstructionOptions all = Options(RecordKind::kCompletion);
  all.prompts_count = true;
  EXPECT_TRUE(EncodeInstruction(kPair, all, Words(), "here").labels.empty());
}

TEST(InstructionTest, RefusesRecordsWithTheirPlace) {
  const InstructionOptions talk = Options(RecordKind::kMessages),
                           pair = Options(RecordKind::kCompletion);
  const auto has = [](const std::string& text, const char* part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
    EXPECT_NE(text.find("chat.jsonl:7"), std::string::npos) << text;
  };
  has(Refused<InputError>(R"({"messages": [{"role": "user", "content": "one"}]})", talk),
      "no token of the record counts");
  has(Refused<FormatError>(R"({"messages": "one"})", talk), "no list of messages");
  has(Refused<FormatError>(R"({"messages": [{"content": "one"}]})", talk), "\"role\" is missing");
  has(Refused<FormatError>(R"({"prompt": "one"})", pair), "\"completion\" is missing");
  has(Refused<FormatError>(R"({"prompt": 1, "completion": "x"})", pair), "\"prompt\" is number");
  has(Refused<FormatError>("{\"prompt\": ", pair), "JSON");
  InstructionOptions rewrites = talk;  // Earlier answers are left out, as thoughts are in Qwen3
  rewrites.chat.emplace(
      "{% for m in messages %}{% if loop.last %}{{ m.content }}{% endif %}{% endfor %}", "", "");
  has(Refused<InputError>(kTalk, rewrites), "prompts_count: true");
}

class InstructionShardsTest : public ::testing::Test {
 protected:
  InstructionShardsTest() {
    std::string lines;
    for (int i = 0; i < 40; ++i) {
      std::string answer;
      for (int word = 0; word <= i % 7; ++word) answer += " three";
      lines += "{\"prompt\": \"one two\", \"completion\": \"" + answer + "\"}\n";
    }
    WriteFileAtomically(folder_ / "pairs.jsonl", lines);
    options_.files = {folder_ / "pairs.jsonl"};
    options_.instruction = Options(RecordKind::kCompletion);
    options_.shard_tokens = 100;  // Several
  }
  std::unique_ptr<TokenSource> Make(const std::string& name) {
    MakeShards(folder_ / name, options_, Words());
    return OpenShards(folder_ / name, Words());
  }

  TempFolder folder_;
  ShardOptions options_;
};

TEST_F(InstructionShardsTest, LabelsComeBackAndBelongToTheJob) {
  const auto tokens = Make("a");
  const int64_t count = tokens->NumTokens(Split::kTrain);
  std::vector<int32_t> ids(static_cast<size_t>(count));
  std::vector<uint8_t> labels(ids.size());
  tokens->Copy(Split::kTrain, 0, count, ids.data());
  tokens->CopyLabels(Split::kTrain, 0, count, labels.data());
  std::vector<int32_t> counted;
  for (size_t i = 0; i < ids.size(); ++i)
    if (labels[i] != 0 && ids[i] != Words().eos_id()) counted.push_back(ids[i]);
  const std::string text = Words().Decode(counted);
  EXPECT_EQ(text.find("one"), std::string::npos) << text;
  EXPECT_NE(text.find("three"), std::string::npos);
  options_.instruction.prompts_count = true;
  EXPECT_THROW(Make("a"), InputError);  // Shards of another job
  const auto all = Make("b");
  all->CopyLabels(Split::kTrain, 0, count, labels.data());
  EXPECT_EQ(std::count(labels.begin(), labels.end(), 1), count);
  options_.instruction.prompts_count = false;
  std::filesystem::remove(folder_ / "a/00000.train.labels.bin");
  EXPECT_ANY_THROW(Make("a"));  // Never without its masks
}

TEST_F(InstructionShardsTest, TokenFilesHaveNoRecords) {
  Make("a");
  DatasetSource source;
  source.name = "pairs";
  source.files = {folder_ / "a/manifest.json"};
  DatasetOptions options;
  options.shards_folder = folder_ / "none";
  options.sources = {source};
  EXPECT_NO_THROW(PrepareDataset(options, Words()));
  options.sources[0].instruction = options_.instruction;
  try {
    PrepareDataset(options, Words());
    ADD_FAILURE() << "accepted";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("data.sources.pairs.record: found completion"),
              std::string::npos)
        << error.what();
  }
}

// Every document is whole in one sample; a row's targets are those of its documents' labels, and
// none is predicted across a border or in padding.
TEST_F(InstructionShardsTest, SamplesHoldWholeDocuments) {
  constexpr int64_t kLength = 24;
  const auto tokens = Make("a");
  const PackedSamples packed(*tokens, kLength);
  const PackedTotals& totals = packed.totals(Split::kTrain);
  EXPECT_EQ(totals.documents, 40);
  EXPECT_EQ(totals.cut_documents, 0);
  EXPECT_EQ(packed.NumTokens(Split::kTrain), totals.samples * kLength + 1);
  EXPECT_EQ(totals.samples * kLength - totals.padding, tokens->NumTokens(Split::kTrain));
  const int64_t least = (tokens->NumTokens(Split::kTrain) + kLength - 1) / kLength;
  EXPECT_LE(totals.samples, least * 11 / 9 + 1);  // Bound of best fit decreasing (Johnson 1974)

  LoaderOptions options;
  options.sequence_length = kLength;
  options.sequences_per_step = totals.samples;  // An epoch
  options.packing = Packing::kDocuments;
  const Batch batch = BatchOfStep(packed, options, 0);
  int64_t counted = 0, want = 0;
  for (int64_t row = 0; row < batch.batch; ++row) {
    for (int64_t t = 0; t < kLength; ++t) {
      const auto at = static_cast<size_t>(row * kLength + t);
      EXPECT_EQ(batch.positions[at] == 0 && batch.document_ids[at] == 0, t == 0);
      if (batch.targets[at] < 0) continue;
      ++counted;
      EXPECT_EQ(batch.targets[at], batch.inputs[at + 1]);  // Within the row, so within the document
      EXPECT_EQ(batch.document_ids[at], batch.document_ids[at + 1]);
    }
  }
  std::vector<uint8_t> labels(static_cast<size_t>(tokens->NumTokens(Split::kTrain)));
  tokens->CopyLabels(Split::kTrain, 0, static_cast<int64_t>(labels.size()), labels.data());
  want = std::count(labels.begin(), labels.end(), 1);
  EXPECT_EQ(counted, want);  // Each answer token once an epoch
  const Batch next = BatchOfStep(packed, options, 1);
  EXPECT_NE(batch.Hash(), next.Hash());  // Another order
  std::multiset<int32_t> first(batch.targets.begin(), batch.targets.end()),
      second(next.targets.begin(), next.targets.end());
  EXPECT_EQ(first, second);  // Of the same samples
}

TEST_F(InstructionShardsTest, LongDocumentsLoseTheirEnds) {
  const auto tokens = Make("a");
  const PackedSamples packed(*tokens, 6);
  EXPECT_GT(packed.totals(Split::kTrain).cut_documents, 0);
  EXPECT_EQ(packed.totals(Split::kTrain).samples * 6 - packed.totals(Split::kTrain).padding +
                packed.totals(Split::kTrain).cut_tokens,
            tokens->NumTokens(Split::kTrain));
}

}  // namespace
}  // namespace tern::data
