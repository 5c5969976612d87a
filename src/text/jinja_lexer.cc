// See jinja_lexer.h.
#include "text/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/error.h"
#include "text/unicode.h"

namespace tern::text::jinja {
namespace {

constexpr size_t kMaxName = 255;  // Looking a name up takes its length

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

int HexDigit(char c) {
  if (IsDigit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) {
    // jinja2: every line end becomes \n, and one at the very end is dropped.
    for (size_t i = 0; i < source.size(); ++i) {
      if (source[i] == '\r') {
        source_ += '\n';
        if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      } else {
        source_ += source[i];
      }
    }
    if (source_.ends_with('\n')) source_.pop_back();
  }

  std::vector<Token> Run() {
    while (at_ < source_.size()) Root();
    Add(TokenType::kEnd, "");
    return std::move(tokens_);
  }

 private:
  bool Ahead(std::string_view what) const {
    return std::string_view(source_).substr(at_).starts_with(what);
  }
  Position Here() const { return here_; }
  void Advance(size_t bytes) {
    for (const size_t end = at_ + bytes; at_ < end; ++at_) {
      if (source_[at_] == '\n') {
        ++here_.line;
        here_.column = 1;
      } else {
        ++here_.column;
      }
    }
  }
  Token& Add(TokenType type, std::string text) {
    Token token;
    token.type = type;
    token.text = std::move(text);
    token.at = here_;
    tokens_.push_back(std::move(token));
    return tokens_.back();
  }

  // Text up to the next tag, then the tag.
  void Root() {
    size_t open = at_;
    while ((open = source_.find('{', open)) != std::string::npos && open + 1 < source_.size() &&
           std::string_view("{%#").find(source_[open + 1]) == std::string_view::npos)
      ++open;
    if (open == std::string::npos || open + 1 >= source_.size()) {
      Text(source_.substr(at_));
      Advance(source_.size() - at_);
      return;
    }
    const char kind = source_[open + 1];
    const char sign = open + 2 < source_.size() ? source_[open + 2] : ' ';
    std::string text = source_.substr(at_, open - at_);
    if (sign == '-') {
      StripRight(&text);
    } else if (sign != '+' && kind != '{') {
      const size_t line = text.rfind('\n') + 1;  // npos + 1 = 0
      if ((line > 0 || line_starts_) &&
          std::all_of(text.begin() + static_cast<std::ptrdiff_t>(line), text.end(), IsSpace))
        text.resize(line);
    }
    Text(std::move(text));
    Advance(open - at_);
    const Position tag = Here();
    Advance(sign == '-' || sign == '+' ? 3 : 2);
    line_starts_ = false;
    if (kind == '#') return Comment(tag);
    if (kind == '%' && Raw(tag)) return;
    Tag(kind == '%', tag);
  }

  void Text(std::string text) {
    if (!text.empty()) Add(TokenType::kText, std::move(text));
  }
  static void StripRight(std::string* text) {
    const std::vector<size_t> offsets = CodepointOffsets(*text);
    for (size_t i = offsets.size() - 1; i > 0; --i) {
      size_t at = offsets[i - 1];
      if (!IsPythonSpace(NextCodepoint(*text, &at))) return;
      text->resize(offsets[i - 1]);
    }
  }
  void SkipSpace() {
    while (at_ < source_.size()) {
      size_t next = at_;
      if (!IsPythonSpace(NextCodepoint(source_, &next))) return;
      Advance(next - at_);
    }
  }

  // The end of a tag at this place: "-%}", "+%}" or "%}". Consumes it and the space that goes with
  // it.
  bool End(char kind) {
    const std::string close = {kind, '}'};
    if (Ahead("-" + close)) {
      Advance(3);
      const size_t before = at_;
      SkipSpace();
      line_starts_ = at_ > before && source_[at_ - 1] == '\n';
      return true;
    }
    if (kind != '}' && Ahead("+" + close)) {
      Advance(3);
      return true;
    }
    if (!Ahead(close)) return false;
    Advance(2);
    if (kind != '}' && Ahead("\n")) {  // trim_blocks
      Advance(1);
      line_starts_ = true;
    }
    return true;
  }

  void Comment(Position tag) {
    while (at_ < source_.size()) {
      if (End('#')) return;
      Advance(1);
    }
    FailAt(tag, "a comment that does not end");
  }

  bool Raw(Position tag) {
    const size_t begin = at_;
    const Position here = here_;
    SkipSpace();
    if (Ahead("raw") && at_ + 3 < source_.size()) {
      Advance(3);
      SkipSpace();
      if (End('%')) {
        RawBody(tag);
        return true;
      }
    }
    at_ = begin;
    here_ = here;
    return false;
  }

  void RawBody(Position tag) {
    const size_t begin = at_;
    while (at_ < source_.size()) {
      const size_t open = at_;
      if (!Ahead("{%")) {
        Advance(1);
        continue;
      }
      Advance(2);
      const bool strip = Ahead("-");
      if (strip || Ahead("+")) Advance(1);
      SkipSpace();
      if (!Ahead("endraw")) continue;
      Advance(6);
      SkipSpace();
      if (!End('%')) continue;
      std::string text = source_.substr(begin, open - begin);
      if (strip) {
        StripRight(&text);
      } else {
        const size_t line = text.rfind('\n') + 1;
        if (line > 0 &&
            std::all_of(text.begin() + static_cast<std::ptrdiff_t>(line), text.end(), IsSpace))
          text.resize(line);
      }
      Text(std::move(text));
      return;
    }
    FailAt(tag, "raw without endraw");
  }

  void Tag(bool block, Position tag) {
    tokens_.push_back({block ? TokenType::kBlockBegin : TokenType::kPrintBegin, "", 0, 0, tag});
    std::string brackets;
    while (true) {
      SkipSpace();
      if (at_ >= source_.size()) FailAt(tag, "a tag that does not end");
      const Position here = Here();
      if (brackets.empty() && End(block ? '%' : '}')) {
        tokens_.push_back({block ? TokenType::kBlockEnd : TokenType::kPrintEnd, "", 0, 0, here});
        return;
      }
      Expression(&brackets);
    }
  }

  void Expression(std::string* brackets) {
    const char c = source_[at_];
    if (IsNameStart(c)) {
      size_t end = at_;
      while (end < source_.size() && (IsNameStart(source_[end]) || IsDigit(source_[end]))) ++end;
      if (end - at_ > kMaxName) FailAt(here_, StrCat("a name longer than ", kMaxName, " bytes"));
      Add(TokenType::kName, source_.substr(at_, end - at_));
      return Advance(end - at_);
    }
    if (IsDigit(c)) return Number();
    if (c == '"' || c == '\'') return String(c);
    static constexpr std::array<std::string_view, 26> kOperators = {
        "//", "**", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<",
        ">",  "=",  ".",  ",",  ":",  ";",  "|", "(", ")", "[", "]", "{", "}"};
    for (const std::string_view name : kOperators) {
      if (!Ahead(name)) continue;
      if (name == "(" || name == "[" || name == "{")
        *brackets += name == "(" ? ')' : name == "[" ? ']' : '}';
      if (name == ")" || name == "]" || name == "}") {
        if (brackets->empty() || brackets->back() != name[0])
          FailAt(Here(), StrCat("an unexpected '", name, "'"));
        brackets->pop_back();
      }
      Add(TokenType::kOperator, std::string(name));
      return Advance(name.size());
    }
    FailAt(Here(), StrCat("the character '", c, "' begins nothing"));
  }

  void Number() {
    size_t end = at_;
    int base = 10;
    if (Ahead("0x") || Ahead("0X")) base = 16;
    if (Ahead("0o") || Ahead("0O")) base = 8;
    if (Ahead("0b") || Ahead("0B")) base = 2;
    if (base != 10) end += 2;
    std::string digits;
    bool is_float = false;
    const auto take_digits = [&] {
      for (; end < source_.size(); ++end) {
        const char c = source_[end];
        if (c == '_') continue;
        if (!(base == 16 ? HexDigit(c) >= 0 : IsDigit(c))) break;
        digits += c;
      }
    };
    take_digits();
    const auto digit_at = [&](size_t i) { return i < source_.size() && IsDigit(source_[i]); };
    if (base == 10 && end < source_.size() && source_[end] == '.' && digit_at(end + 1)) {
      is_float = true;
      digits += source_[end++];
      take_digits();
    }
    if (base == 10 && end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const bool sign =
          end + 1 < source_.size() && (source_[end + 1] == '-' || source_[end + 1] == '+');
      if (digit_at(end + (sign ? 2 : 1))) {
        is_float = true;
        digits += 'e';
        ++end;
        if (sign && source_[end] == '-') digits += '-';
        if (sign) ++end;
        take_digits();
      }
    }
    Token& token = Add(is_float ? TokenType::kFloat : TokenType::kInteger, digits);
    const char* last = digits.data() + digits.size();
    const auto result = is_float ? std::from_chars(digits.data(), last, token.number)
                                 : std::from_chars(digits.data(), last, token.integer, base);
    if (result.ec != std::errc() || result.ptr != last)
      FailAt(Here(), StrCat("the number ", source_.substr(at_, end - at_), " cannot be read"));
    Advance(end - at_);
  }

  void String(char quote) {
    const Position begin = Here();
    std::string value;
    Advance(1);
    while (true) {
      if (at_ >= source_.size()) FailAt(begin, "a string that does not end");
      const char c = source_[at_];
      Advance(1);
      if (c == quote) break;
      if (c == '\\') {
        Escape(begin, &value);
      } else {
        value += c;
      }
    }
    Add(TokenType::kString, std::move(value)).at = begin;
  }

  // Python's escapes. One that does not exist stays as it is.
  void Escape(Position begin, std::string* value) {
    if (at_ >= source_.size()) FailAt(begin, "a string that does not end");
    const char c = source_[at_];
    constexpr std::string_view kNames = "\\'\"abfnrtv", kValues = "\\'\"\a\b\f\n\r\t\v";
    if (const size_t found = kNames.find(c); found != std::string_view::npos) {
      *value += kValues[found];
      return Advance(1);
    }
    if (c == '\n') return Advance(1);
    uint32_t codepoint = 0;
    size_t digits = 0;
    if (c >= '0' && c <= '7') {
      while (digits < 3 && at_ < source_.size() && source_[at_] >= '0' && source_[at_] <= '7') {
        codepoint = codepoint * 8 + static_cast<uint32_t>(source_[at_] - '0');
        Advance(1);
        ++digits;
      }
      return AppendCodepoint(codepoint, value);
    }
    const size_t want = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (want == 0) {
      *value += '\\';
      return;
    }
    Advance(1);
    for (; digits < want; ++digits, Advance(1)) {
      const int digit = at_ < source_.size() ? HexDigit(source_[at_]) : -1;
      if (digit < 0) FailAt(begin, StrCat("\\", c, " wants ", want, " hexadecimal digits"));
      codepoint = codepoint * 16 + static_cast<uint32_t>(digit);
    }
    if (codepoint > 0x10FFFF || (codepoint >= 0xD800 && codepoint <= 0xDFFF))
      FailAt(begin, "an escape that is no character");
    AppendCodepoint(codepoint, value);
  }

  std::string source_;
  size_t at_ = 0;
  Position here_;
  bool line_starts_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

void FailAt(Position at, const std::string& message) {
  throw FormatError(StrCat("chat template, line ", at.line, ", column ", at.column, ": ", message));
}

std::vector<Token> Tokenize(std::string_view source) { return Lexer(source).Run(); }

}  // namespace tern::text::jinja
