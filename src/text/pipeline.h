// The steps around a BPE model: added tokens are cut out, text is normalized and cut into words.
// What each does is what HF tokenizers does.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/bpe_definition.h"
#include "text/regex.h"

namespace tern::text {

// All of a list of steps, in order. `text` and the result are UTF-8.
std::string ApplyNormalizers(const std::vector<NormalizerStep>& steps, std::string_view text,
                             Regex::Workspace* workspace);

// Takes the words of a text in order.
class WordSink {
 public:
  virtual ~WordSink() = default;
  virtual void Word(std::string_view word) = 0;
};

// Cuts `text`. `at_start`: nothing of the original text came before.
void SplitWords(const std::vector<PreTokenizerStep>& steps, std::string_view text, bool at_start,
                Regex::Workspace* workspace, WordSink* sink);

// Finds added tokens: of those that begin at a place the longest, as they come from the left.
class AddedTokenMatcher {
 public:
  // Contents differ; REQUIRES: none is empty.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  struct Part {
    size_t begin = 0, end = 0;
    int32_t id = -1;  // -1: text between tokens
  };
  // Parts that cover `text`, in order; an empty text has none.
  std::vector<Part> Cut(std::string_view text, Regex::Workspace* workspace) const;
  bool empty() const { return tokens_.empty(); }

 private:
  struct Node {
    std::vector<std::pair<unsigned char, int32_t>> children;
    int32_t token = -1;
  };
  // Index of the longest token at `at`, or -1.
  int32_t Longest(std::string_view text, size_t at) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::array<bool, 256> first_{};
  Regex word_;  // What counts as a letter beside a single_word token
};

}  // namespace tern::text
