// Jinja's source cut into text and tokens, with white space removed as jinja2 does for trim_blocks,
// lstrip_blocks and the signs of {%- -%} (jinja2/lexer.py documents the rules;
// keep_trailing_newline is off).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tern::text::jinja {

struct Position {
  int line = 1, column = 1;  // Column in bytes
};

enum class TokenType {
  kText,  // Between the tags
  kBlockBegin,
  kBlockEnd,
  kPrintBegin,
  kPrintEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenType type = TokenType::kEnd;
  std::string text;  // Name, operator, or the value of a text or string
  int64_t integer = 0;
  double number = 0;
  Position at;
};

// Throws FormatError with line and column. REQUIRES: valid UTF-8.
std::vector<Token> Tokenize(std::string_view source);

// A FormatError of the template at a place.
[[noreturn]] void FailAt(Position at, const std::string& message);

}  // namespace tern::text::jinja
