// Regular expressions of tokenizers, run by PCRE2 with its compiler to machine code. Patterns are
// written for Oniguruma (tokenizer.json) or Rust's fancy-regex (tiktoken, GGUF) and are translated:
// \s, \w and \d by their Unicode definitions there, scripts by name, letters and numbers as
// Unicode 16 has them whatever PCRE2 knows, $ and ^ by dialect. What the engines read in
// different ways is refused. Steps are limited, for a match and for a text: a pattern that
// backtracks without end, or for each character anew, gives an error and no ids.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace tern::text {

enum class RegexDialect { kOniguruma, kFancyRegex };

class Regex {
 public:
  // Memory that one thread needs for matching; may serve several expressions in turn.
  class Workspace {
   public:
    Workspace();
    ~Workspace();
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;

   private:
    friend class Regex;
    struct Impl;
    std::unique_ptr<Impl> impl_;
  };

  // Throws FormatError with the pattern when it is none, longer than 64 kB, or not translated.
  Regex(const std::string& pattern, RegexDialect dialect);
  // A text that is found as it is.
  static Regex Literal(std::string_view text);

  // First match at or behind `from`. REQUIRES: `text` is UTF-8, `from` a character border.
  // Throws FormatError at the limit of steps.
  bool Find(std::string_view text, size_t from, Workspace* workspace, size_t* begin,
            size_t* end) const;

 private:
  struct Impl;
  explicit Regex(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

}  // namespace tern::text
