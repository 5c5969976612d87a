// See train_tokenizer.h.
#include "text/train_tokenizer.h"

#include <sentencepiece_trainer.h>

#include <algorithm>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "text/model_proto.h"
#include "text/utf8.h"

namespace tern::text {
namespace {

// The library drops sentences above its limit; longer lines are cut at a character border below it.
constexpr size_t kMaxSentenceBytes = 4000;

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
      const size_t end = std::min(text.find_first_of("\n\r\t"), text.size());
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

// Trains; nothing when the text supports fewer pieces. The library says so in a message of its own.
std::string Train(const std::vector<std::string_view>& documents, const TokenizerTraining& options,
                  int64_t vocab_size, std::string* failure) {
  LineIterator lines(documents);
  if (lines.empty()) throw InputError("the training text has no line with text in it");
  const std::unordered_map<std::string, std::string> arguments = {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(vocab_size)},
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
  if (!status.ok()) *failure = status.ToString();
  return status.ok() ? model : "";
}

// The largest size that trains, by bisection; at least kMinVocabSize - 1 when none does.
int64_t LargestSize(const std::vector<std::string_view>& documents,
                    const TokenizerTraining& options) {
  int64_t low = kMinVocabSize - 1, high = options.vocab_size;
  std::string ignored;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (Train(documents, options, middle, &ignored).empty() ? high : low) = middle;
  }
  return low;
}

}  // namespace

Tokenizer TrainTokenizer(const std::vector<std::string_view>& documents,
                         const TokenizerTraining& options) {
  TERN_CHECK_INPUT(options.vocab_size >= kMinVocabSize && options.vocab_size <= kMaxVocabSize,
                   "a vocabulary of ", options.vocab_size, " pieces; want ", kMinVocabSize, " to ",
                   kMaxVocabSize);
  for (const std::string_view document : documents) CheckText(document, "training text");
  std::string failure;
  const std::string model = Train(documents, options, options.vocab_size, &failure);
  if (model.empty()) {
    const int64_t largest = LargestSize(documents, options);
    TERN_CHECK_INPUT(largest < kMinVocabSize, "a vocabulary of ", options.vocab_size,
                     " pieces is more than this text supports; ",
                     "set data.tokenizer.vocab_size to at most ", largest);
    throw InputError(StrCat("this text cannot train a tokenizer of ", options.vocab_size,
                            " pieces: ", failure, "; give more text or a larger vocabulary"));
  }
  // Stored in our own encoding, without the trainer's settings and self-tests.
  return Tokenizer::FromPieces(DecodeModelProto(model, "trained tokenizer"));
}

}  // namespace tern::text
