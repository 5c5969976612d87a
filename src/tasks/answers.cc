// See answers.h. The patterns are matched by hand: std::regex recurses, and texts are a model's.
#include "tasks/answers.h"

#include <algorithm>
#include <cctype>

namespace tern::tasks {
namespace {

constexpr std::string_view kMark = "#### ";

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsStrict(char c) { return IsDigit(c) || c == '.' || c == ','; }
bool IsFlexible(char c) { return IsStrict(c) || c == '$'; }

template <class Is>
size_t RunEnd(std::string_view text, size_t begin, const Is& is) {
  while (begin < text.size() && is(text[begin])) ++begin;
  return begin;
}

// End of a match of (-?[$0-9.,]{2,})|(-?[0-9]+) at `begin`, or `begin`.
size_t FlexibleEnd(std::string_view text, size_t begin) {
  const size_t number = begin + (text[begin] == '-' ? 1 : 0);
  const size_t wide = RunEnd(text, number, IsFlexible);
  if (wide - number >= 2) return wide;
  const size_t digits = RunEnd(text, number, IsDigit);
  return digits > number ? digits : begin;
}

}  // namespace

std::string StrictAnswer(std::string_view text) {
  for (size_t at = text.find(kMark); at != text.npos; at = text.find(kMark, at + 1)) {
    const size_t begin = at + kMark.size();
    const size_t number = begin + (begin < text.size() && text[begin] == '-' ? 1 : 0);
    const size_t end = RunEnd(text, number, IsStrict);
    if (end > number) return std::string(text.substr(begin, end - begin));
  }
  return std::string(kNoAnswer);
}

std::string FlexibleAnswer(std::string_view text) {
  std::string_view last = kNoAnswer;
  for (size_t at = 0; at < text.size();) {
    const size_t end = FlexibleEnd(text, at);
    if (end > at) last = text.substr(at, end - at);
    at = std::max(end, at + 1);
  }
  return std::string(last);
}

std::string NormalizedAnswer(std::string_view text) {
  std::string out;
  for (const char c : text)
    if (c != ',' && c != '$') out += c;
  const size_t mark = out.rfind(kMark);
  if (mark != out.npos) out.erase(0, mark + kMark.size());
  const size_t end = !out.empty() && out.back() == '\n' ? out.size() - 1 : out.size();
  if (end > 0 && out[end - 1] == '.') out.erase(end - 1, 1);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

std::string_view Trimmed(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace tern::tasks
