// See regex.h.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>

#include <array>

#include "base/error.h"
#include "text/unicode_additions.h"

namespace tern::text {
namespace {

constexpr size_t kMaxPattern = 64 << 10;
// PCRE2 counts steps anew for each place at which a match may start, and one step of its machine
// code may run over the rest of the text: a pattern of cubic cost takes minutes and stays below the
// limit. So a place is tried with few steps first, which ordinary patterns never need; places that
// need more are counted, and a text may have so many of them as its length allows.
constexpr uint32_t kFewSteps = 1000;
constexpr uint32_t kMaxSteps = 20'000'000;            // A tenth of a second
constexpr size_t kManyStarts = 4096, kFewStarts = 4;  // Places tried at once, in bytes
constexpr size_t kSlowWindows = 16;                   // Of kFewStarts places, and one more
constexpr size_t kBytesOfSlowWindow = 4096;           // for so many bytes that are behind them
constexpr size_t kJitStack = 1 << 20;                 // Bytes

// Unicode's White_Space.
constexpr const char* kWhiteSpace =
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"
    "\\x{3000}";

// One pattern into PCRE2's dialect.
class Translator {
 public:
  Translator(const std::string& pattern, RegexDialect dialect)
      : pattern_(pattern), onig_(dialect == RegexDialect::kOniguruma) {}

  std::string Run() {
    while (at_ < pattern_.size()) {
      if (in_class_) {
        InClass();
      } else {
        Outside();
      }
    }
    if (in_class_) Refuse("a class that does not end");
    return std::move(out_);
  }

 private:
  [[noreturn]] void Refuse(const std::string& why) const {
    throw FormatError(StrCat("regular expression ", pattern_, ": ", why, " at byte ", at_));
  }
  char Next(size_t i = 1) const { return at_ + i < pattern_.size() ? pattern_[at_ + i] : '\0'; }
  void Copy(size_t count = 1) {
    out_.append(pattern_, at_, count);
    at_ += count;
  }

  void Outside() {
    const char c = pattern_[at_];
    switch (c) {
      case '\\':
        return Escape();
      case '[':
        in_class_ = true;
        Copy();
        if (at_ < pattern_.size() && pattern_[at_] == '^') Copy();
        if (at_ < pattern_.size() && pattern_[at_] == ']') Refuse("] as the first of a class");
        return;
      case '(':
        return Group();
      case '$':
        out_ += onig_ ? "(?=\\n|\\z)" : "\\z";
        ++at_;
        return;
      case '^':
        out_ += onig_ ? "(?:\\A|(?<=\\n))" : "\\A";
        ++at_;
        return;
      case '{':
        return Repeat();
      default:
        return Copy();
    }
  }

  void Group() {
    if (Next() != '?') {
      if (Next() == '*') Refuse("a verb");
      return Copy();
    }
    const char kind = Next(2);
    if (kind == ':' || kind == '=' || kind == '!' || kind == '>') return Copy(3);
    if (kind == '<' && (Next(3) == '=' || Next(3) == '!')) return Copy(4);
    if (kind == 'i' && (Next(3) == ':' || Next(3) == ')')) return Copy(4);
    if (kind == '-' && Next(3) == 'i' && (Next(4) == ':' || Next(4) == ')')) return Copy(5);
    Refuse("a group of this kind is not supported");
  }

  void Repeat() {
    size_t end = at_ + 1;
    while (end < pattern_.size() &&
           (pattern_[end] == ',' || (pattern_[end] >= '0' && pattern_[end] <= '9')))
      ++end;
    if (end >= pattern_.size() || pattern_[end] != '}' || end == at_ + 1 || Next() == ',')
      Refuse("{ that is no {n,m}; write \\{");
    if (onig_ && end + 1 < pattern_.size() && pattern_[end + 1] == '+')
      Refuse("{n,m}+, which engines read in two ways");
    Copy(end + 1 - at_);
  }

  void InClass() {
    const char c = pattern_[at_];
    if (c == '\\') return Escape();
    if (c == '[') Refuse("a class in a class; write \\[");
    if (c == '&' && Next() == '&') Refuse("an intersection of classes");
    if (c == ']') in_class_ = false;
    Copy();
  }

  // A property as a class, or as the inside of one.
  void Put(const std::string& inside, bool negated) {
    if (in_class_) {
      if (negated) Refuse("a negated set inside of a class");
      out_ += inside;
    } else {
      out_ += (negated ? "[^" : "[") + inside + "]";
    }
  }

  void Escape() {
    const char c = Next();
    if (at_ + 1 >= pattern_.size()) Refuse("a \\ at the end");
    at_ += 2;
    switch (c) {
      case 's':
        return Put(kWhiteSpace, false);
      case 'S':
        if (in_class_) {  // Everything between those
          out_ +=
              "\\x00-\\x08\\x0e-\\x1f\\x21-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-"
              "\\x{1fff}\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-"
              "\\x{2fff}\\x{3001}-\\x{d7ff}\\x{e000}-\\x{10ffff}";
          return;
        }
        return Put(kWhiteSpace, true);
      case 'd':
      case 'D':
        return Put(Category("Nd"), c == 'D');
      case 'w':
      case 'W':
        // Oniguruma's own table: letters, marks, digits, connectors and six signs of Latin-1.
        return Put("\\p{Alphabetic}\\p{L}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}" +
                       AddedCodepoints("L") + Category("M") + Category("Nd"),
                   c == 'W');
      case 'p':
      case 'P':
        return Property(c == 'P');
      case 'x':
      case 'u':
        return Number(c);
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'v':
      case 'e':
      case 'a':
        out_ += c == 'v' ? std::string("\\x0b") : std::string{'\\', c};
        return;
      case 'A':
      case 'z':
        if (!in_class_) {
          out_ += std::string{'\\', c};
          return;
        }
        break;
      default:
        break;
    }
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))
      Refuse(StrCat("\\", c, " is not supported"));
    out_ += '\\';
    --at_;
    Copy();
  }

  void Number(char kind) {
    size_t end = at_;
    const bool braces = end < pattern_.size() && pattern_[end] == '{';
    if (braces) ++end;
    const size_t begin = end;
    const size_t most = braces ? 8 : kind == 'u' ? 4 : 2;
    while (end < pattern_.size() && end - begin < most &&
           std::isxdigit(static_cast<unsigned char>(pattern_[end])) != 0)
      ++end;
    if (end == begin) Refuse("hexadecimal digits are missing");
    out_ += "\\x{" + pattern_.substr(begin, end - begin) + "}";
    if (braces && (end >= pattern_.size() || pattern_[end++] != '}')) Refuse("} is missing");
    at_ = end;
  }

  // \p{name}: categories with what newer versions of Unicode have added; scripts.
  void Property(bool negated) {
    std::string name;
    if (at_ < pattern_.size() && pattern_[at_] == '{') {
      const size_t end = pattern_.find('}', at_);
      if (end == std::string::npos) Refuse("} is missing");
      name = pattern_.substr(at_ + 1, end - at_ - 1);
      at_ = end + 1;
    } else if (at_ < pattern_.size()) {
      name = pattern_[at_++];
    }
    if (name.starts_with('^')) {
      negated = !negated;
      name.erase(0, 1);
    }
    if (name.size() <= 2) {
      const std::string set = Category(name);
      if (!negated) return Put(set, false);
      if (!in_class_) return Put(set, true);
      if (set.find("\\x") != std::string::npos) Refuse("a negated category inside of a class");
      out_ += "\\P{" + name + "}";
      return;
    }
    if (name == "Alphabetic") return Put("\\p{Alphabetic}" + AddedCodepoints("L"), negated);
    if (name.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_") !=
        std::string::npos)
      Refuse("a property of this form");
    out_ += (negated ? "\\P{" : "\\p{") + std::string("sc:") + name + "}";
  }

  static std::string Category(const std::string& name) {
    return "\\p{" + name + "}" + AddedCodepoints(name);
  }

  const std::string& pattern_;
  bool onig_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace

struct Regex::Impl {
  std::string pattern;
  pcre2_code* code = nullptr;
  bool jit = false;

  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { pcre2_code_free(code); }
};

struct Regex::Workspace::Impl {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, kJitStack, nullptr);
  size_t bytes = 0, slow_windows = 0;  // Matched so far, and what needed more than few steps

  Impl() {
    if (data == nullptr || context == nullptr || stack == nullptr)
      throw ResourceError("out of memory for a regular expression");
    pcre2_set_heap_limit(context, 64 << 10);  // KiB
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

Regex::Workspace::Workspace() : impl_(std::make_unique<Impl>()) {}
Regex::Workspace::~Workspace() = default;

namespace {

std::string Message(int code) {
  std::array<unsigned char, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

pcre2_code* Compile(const std::string& translated, const std::string& shown, uint32_t options) {
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  if (context == nullptr) throw ResourceError("out of memory for a regular expression");
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE at = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_USE_OFFSET_LIMIT | options, &error, &at, context);
  pcre2_compile_context_free(context);
  TERN_CHECK_FORMAT(code != nullptr, "regular expression ", shown, ": ", Message(error));
  return code;
}

}  // namespace

Regex::Regex(const std::string& pattern, RegexDialect dialect) {
  TERN_CHECK_FORMAT(pattern.size() <= kMaxPattern, "a regular expression of ", pattern.size(),
                    " bytes; want at most ", kMaxPattern);
  auto impl = std::make_shared<Impl>();
  impl->pattern = pattern;
  impl->code =
      Compile(Translator(pattern, dialect).Run(), pattern, PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C);
  impl->jit = pcre2_jit_compile(impl->code, PCRE2_JIT_COMPLETE) == 0;
  impl_ = std::move(impl);
}

Regex Regex::Literal(std::string_view text) {
  auto impl = std::make_shared<Impl>();
  impl->pattern = text;
  impl->code = Compile(impl->pattern, impl->pattern, PCRE2_LITERAL);
  impl->jit = pcre2_jit_compile(impl->code, PCRE2_JIT_COMPLETE) == 0;
  return Regex(std::move(impl));
}

bool Regex::Find(std::string_view text, size_t from, Workspace* workspace, size_t* begin,
                 size_t* end) const {
  Workspace::Impl& space = *workspace->impl_;
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const auto match = [&](size_t first, size_t starts, uint32_t steps) {
    pcre2_set_offset_limit(space.context, first + starts - 1);
    pcre2_set_match_limit(space.context, steps);
    const auto run = impl_->jit ? pcre2_jit_match : pcre2_match;
    return run(impl_->code, subject, text.size(), first, PCRE2_NO_UTF_CHECK, space.data,
               space.context);
  };
  size_t first = from, starts = kManyStarts;
  for (;;) {
    int result = match(first, starts, kFewSteps);
    if (result == PCRE2_ERROR_MATCHLIMIT && starts > kFewStarts) {
      starts = kFewStarts;
      continue;
    }
    if (result == PCRE2_ERROR_MATCHLIMIT) {
      TERN_CHECK_FORMAT(
          space.slow_windows <= kSlowWindows + (space.bytes + first - from) / kBytesOfSlowWindow,
          "the regular expression ", impl_->pattern, " takes too many steps on this text");
      ++space.slow_windows;
      result = match(first, starts, kMaxSteps);
    }
    if (result == PCRE2_ERROR_NOMATCH) {
      first += starts;
      while (first < text.size() && (static_cast<uint8_t>(text[first]) & 0xC0) == 0x80) ++first;
      if (first > text.size()) return false;
      continue;
    }
    TERN_CHECK_FORMAT(result >= 0, "the regular expression ", impl_->pattern,
                      " fails: ", Message(result), "; the text is beyond its limits");
    const PCRE2_SIZE* border = pcre2_get_ovector_pointer(space.data);
    *begin = border[0];
    *end = border[1];
    space.bytes += *end - from;
    return true;
  }
}

}  // namespace tern::text
