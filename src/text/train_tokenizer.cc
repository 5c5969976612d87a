// See train_tokenizer.h.
#include "text/train_tokenizer.h"

#include <sentencepiece_trainer.h>

#include <algorithm>
#include <string>
#include <unordered_map>

#include "base/error.h"
#include "base/utf8.h"
#include "text/model_proto.h"

namespace tern::text {
namespace {

// The library drops sentences above its limit; longer lines are cut at a character border below it.
constexpr size_t kMaxSentenceBytes = 4000;
constexpr double kMinCoverage = 0.98;  // The library takes no less.
// Never part of a piece: byte tokens.
constexpr std::string_view kLineBreaks = "\n\r\t";

// Gives the trainer the lines of all documents, without line ends and tabs, in order.
class LineIterator : public sentencepiece::SentenceIterator {
 public:
  explicit LineIterator(const std::vector<std::string_view>& documents) {
    for (const std::string_view document : documents) AddLines(document);
  }
  bool done() const override { return at_ == lines_.size(); }
  void Next() override {
    ++at_;
    if (!done()) value_ = lines_[at_];
  }
  const std::string& value() const override {
    if (at_ == 0 && value_.empty() && !lines_.empty()) value_ = lines_[0];
    return value_;
  }
  sentencepiece::util::Status status() const override { return {}; }
  bool empty() const { return lines_.empty(); }

 private:
  void AddLines(std::string_view text) {
    while (!text.empty()) {
      const size_t end = std::min(text.find_first_of(kLineBreaks), text.size());
      std::string_view line = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      while (!line.empty()) {
        const size_t size = CharacterBorder(line, std::min(kMaxSentenceBytes, line.size()));
        lines_.push_back(line.substr(0, size));
        line.remove_prefix(size);
      }
    }
  }

  std::vector<std::string_view> lines_;
  size_t at_ = 0;
  mutable std::string value_;
};

// Kinds of characters that get a piece: the most frequent ones up to the coverage, as the library
// counts them.
int64_t CoveredCharacters(const std::vector<std::string_view>& documents, double coverage) {
  std::unordered_map<std::string_view, int64_t> counts;
  int64_t all = 0;
  for (const std::string_view document : documents) {
    for (size_t at = 0, size = 0; at < document.size(); at += size) {
      size = static_cast<size_t>(SequenceLength(static_cast<unsigned char>(document[at])));
      const std::string_view character = document.substr(at, size);
      if (kLineBreaks.find(character) != std::string_view::npos) continue;
      ++counts[character];
      ++all;
    }
  }
  std::vector<int64_t> sorted;
  for (const auto& [character, count] : counts) sorted.push_back(count);
  std::sort(sorted.rbegin(), sorted.rend());
  int64_t kinds = 0, covered = 0;
  for (const int64_t count : sorted) {
    if (static_cast<double>(covered) >= coverage * static_cast<double>(all)) break;
    covered += count;
    ++kinds;
  }
  return kinds;
}

// The library's model, with fewer pieces when the text supports no more.
PieceTable Train(const std::vector<std::string_view>& documents, const TokenizerTraining& options) {
  LineIterator lines(documents);
  TERN_CHECK_INPUT(!lines.empty(), "the training text has no line with text in it");
  const std::unordered_map<std::string, std::string> arguments = {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(options.vocab_size)},
      {"hard_vocab_limit", "false"},
      {"byte_fallback", "true"},
      {"character_coverage", std::to_string(options.character_coverage)},
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"split_digits", "true"},
      {"num_threads", "1"},
      {"max_sentence_length", std::to_string(2 * kMaxSentenceBytes)},
      {"unk_id", "0"},
      {"bos_id", "1"},
      {"eos_id", "2"},
      {"pad_id", "-1"},
      {"minloglevel", "3"}};
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(arguments, &lines, &model);
  TERN_CHECK_INPUT(status.ok(), "this text cannot train a tokenizer of ", options.vocab_size,
                   " pieces (sentencepiece: ", status.ToString(), "); give more text");
  return DecodeModelProto(model, "trained tokenizer");
}

}  // namespace

Tokenizer TrainTokenizer(const std::vector<std::string_view>& documents,
                         const TokenizerTraining& options) {
  TERN_CHECK_INPUT(options.vocab_size >= kMinVocabSize && options.vocab_size <= kMaxVocabSize,
                   "a vocabulary of ", options.vocab_size, " pieces; want ", kMinVocabSize, " to ",
                   kMaxVocabSize);
  TERN_CHECK_INPUT(options.character_coverage >= kMinCoverage && options.character_coverage <= 1,
                   "a character coverage of ", options.character_coverage, "; want ", kMinCoverage,
                   " to 1");
  for (const std::string_view document : documents) CheckText(document, "training text");
  const int64_t characters = CoveredCharacters(documents, options.character_coverage);
  const int64_t least = kMinVocabSize - 1 + characters;
  TERN_CHECK_INPUT(options.vocab_size >= least, "a vocabulary of ", options.vocab_size,
                   " pieces has no room for the ", characters,
                   " characters of this text; set data.tokenizer.vocab_size to at least ", least);
  PieceTable table = Train(documents, options);
  const auto size = static_cast<int64_t>(table.pieces.size());
  TERN_CHECK_INPUT(size == options.vocab_size, "a vocabulary of ", options.vocab_size,
                   " pieces is more than this text supports; set data.tokenizer.vocab_size to at "
                   "most ",
                   size);
  // Stored in our own encoding, without the trainer's settings and self-tests.
  return Tokenizer::FromPieces(table);
}

}  // namespace tern::text
