// See pipeline.h.
#include "text/pipeline.h"

#include <algorithm>

#include "base/utf8.h"
#include "text/unicode.h"
#include "text/unicode_additions.h"

namespace tern::text {
namespace {

// Calls match(begin, end) for each match, as regular expression libraries iterate: an empty match
// directly behind another one does not count.
template <class Match>
void ForEachMatch(const Regex& regex, std::string_view text, Regex::Workspace* workspace,
                  Match match) {
  size_t from = 0, last_end = std::string_view::npos, begin = 0, end = 0;
  while (from <= text.size() && regex.Find(text, from, workspace, &begin, &end)) {
    if (begin == end) {
      if (begin != last_end) match(begin, end);
      if (begin >= text.size()) return;
      from = begin;
      NextCodepoint(text, &from);
      if (begin == last_end) continue;
    } else {
      match(begin, end);
      from = end;
    }
    last_end = end;
  }
}

std::string ReplaceAll(const Regex& regex, std::string_view text, const std::string& content,
                       Regex::Workspace* workspace) {
  std::string out;
  size_t at = 0;
  ForEachMatch(regex, text, workspace, [&](size_t begin, size_t end) {
    out += text.substr(at, begin - at);
    out += content;
    at = end;
  });
  out += text.substr(at);
  return out;
}

std::string_view StripSpace(std::string_view text, bool left, bool right) {
  while (left && !text.empty()) {
    size_t next = 0;
    if (!IsWhiteSpace(NextCodepoint(text, &next))) break;
    text.remove_prefix(next);
  }
  while (right && !text.empty()) {
    const size_t last = CharacterBorder(text, text.size() - 1);
    size_t at = last;
    if (!IsWhiteSpace(NextCodepoint(text, &at))) break;
    text = text.substr(0, last);
  }
  return text;
}

std::string WithoutMarks(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const uint32_t c = NextCodepoint(text, &at);
    if (!IsMark(c) || IsLeftAlone(c)) out += text.substr(begin, at - begin);
  }
  return out;
}

// The normal form of the stretches between characters that the peer's tables do not know.
std::string InForm(std::string_view text, NormalForm form) {
  std::string out;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    if (static_cast<unsigned char>(text[at]) < 0xCC) {  // Below U+0300: all known
      ++at;
      continue;
    }
    if (!IsLeftAlone(NextCodepoint(text, &at))) continue;
    out += Normalize(text.substr(done, begin - done), form);
    out += text.substr(begin, at - begin);
    done = at;
  }
  return out + Normalize(text.substr(done), form);
}

std::string Applied(const NormalizerStep& step, std::string_view text,
                    Regex::Workspace* workspace) {
  switch (step.kind) {
    case NormalizerStep::Kind::kForm:
      return InForm(text, step.form);
    case NormalizerStep::Kind::kPrepend:
      return text.empty() ? "" : step.content + std::string(text);
    case NormalizerStep::Kind::kReplace:
      return ReplaceAll(step.pattern[0], text, step.content, workspace);
    case NormalizerStep::Kind::kLowercase:
      return ToLower(text);
    case NormalizerStep::Kind::kStrip:
      return std::string(StripSpace(text, step.left, step.right));
    case NormalizerStep::Kind::kStripAccents:
      return WithoutMarks(text);
  }
  __builtin_unreachable();
}

class Splitter {
 public:
  Splitter(const std::vector<PreTokenizerStep>& steps, Regex::Workspace* workspace, WordSink* sink)
      : steps_(steps), workspace_(workspace), sink_(sink) {}

  void Run(size_t step, std::string_view text, bool at_start) {
    if (text.empty()) return;
    if (step == steps_.size()) return sink_->Word(text);
    const PreTokenizerStep& now = steps_[step];
    switch (now.kind) {
      case PreTokenizerStep::Kind::kSplit:
        return Split(step, text, at_start);
      case PreTokenizerStep::Kind::kSpacePrefix:
        if (text.starts_with(' ')) return Run(step + 1, text, at_start);
        return Run(step + 1, " " + std::string(text), at_start);
      case PreTokenizerStep::Kind::kMetaspace:
        return Metaspace(step, text, at_start);
    }
  }

 private:
  struct Part {
    size_t begin, end;
    bool match;
  };

  void Split(size_t step, std::string_view text, bool at_start) {
    const PreTokenizerStep& now = steps_[step];
    const auto give = [&](size_t begin, size_t end) {
      Run(step + 1, text.substr(begin, end - begin), at_start && begin == 0);
    };
    if (now.behavior == SplitBehavior::kIsolated || now.behavior == SplitBehavior::kRemoved) {
      const bool all = now.behavior == SplitBehavior::kIsolated;
      size_t at = 0;
      ForEachMatch(now.regex[0], text, workspace_, [&](size_t begin, size_t end) {
        if (begin > at && (all || !now.invert)) give(at, begin);
        if (all || now.invert) give(begin, end);
        at = end;
      });
      if (at < text.size() && (all || !now.invert)) give(at, text.size());
      return;
    }
    for (const Part& part : Joined(text, now)) give(part.begin, part.end);
  }

  std::vector<Part> Joined(std::string_view text, const PreTokenizerStep& now) {
    std::vector<Part> parts;
    size_t at = 0;
    ForEachMatch(now.regex[0], text, workspace_, [&](size_t begin, size_t end) {
      if (begin > at) parts.push_back({at, begin, now.invert});
      parts.push_back({begin, end, !now.invert});
      at = end;
    });
    if (at < text.size()) parts.push_back({at, text.size(), now.invert});
    std::vector<Part> joined;
    if (now.behavior == SplitBehavior::kMergedWithNext) {
      bool behind = false;  // Whether the part to the right is a match
      for (size_t i = parts.size(); i-- > 0;) {
        if (parts[i].match && !behind && !joined.empty()) {
          joined.back().begin = parts[i].begin;
        } else {
          joined.push_back(parts[i]);
        }
        behind = parts[i].match;
      }
      std::reverse(joined.begin(), joined.end());
      return joined;
    }
    const bool contiguous = now.behavior == SplitBehavior::kContiguous;
    bool before = false, first = true;
    for (const Part& part : parts) {
      const bool join = contiguous ? !first && part.match == before : part.match && !before;
      if (join && !joined.empty()) {
        joined.back().end = part.end;
      } else {
        joined.push_back(part);
      }
      before = part.match;
      first = false;
    }
    return joined;
  }

  void Metaspace(size_t step, std::string_view text, bool at_start) {
    const PreTokenizerStep& now = steps_[step];
    using Prepend = PreTokenizerStep::Prepend;
    std::string marked;
    for (const char c : text) {
      if (c == ' ') {
        marked += now.replacement;
      } else {
        marked += c;
      }
    }
    if ((now.prepend == Prepend::kAlways || (now.prepend == Prepend::kFirst && at_start)) &&
        !marked.starts_with(now.replacement))
      marked.insert(0, now.replacement);
    if (!now.split) return Run(step + 1, marked, at_start);
    const std::string_view view = marked;
    // Cut before each mark; a mark that another one follows is a part of its own.
    for (size_t begin = 0; begin < view.size();) {
      const size_t next = view.find(now.replacement, begin + 1);
      const size_t end = std::min(next, view.size());
      Run(step + 1, view.substr(begin, end - begin), at_start && begin == 0);
      begin = end;
    }
  }

  const std::vector<PreTokenizerStep>& steps_;
  Regex::Workspace* workspace_;
  WordSink* sink_;
};

}  // namespace

std::string ApplyNormalizers(const std::vector<NormalizerStep>& steps, std::string_view text,
                             Regex::Workspace* workspace) {
  std::string now(text);
  for (const NormalizerStep& step : steps) now = Applied(step, now, workspace);
  return now;
}

void SplitWords(const std::vector<PreTokenizerStep>& steps, std::string_view text, bool at_start,
                Regex::Workspace* workspace, WordSink* sink) {
  Splitter(steps, workspace, sink).Run(0, text, at_start);
}

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), nodes_(1), word_(kRustWord, RegexDialect::kFancyRegex) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    size_t node = 0;
    for (const char c : tokens_[i].content) {
      const auto byte = static_cast<unsigned char>(c);
      auto& children = nodes_[node].children;
      const auto at = std::lower_bound(children.begin(), children.end(), std::pair(byte, 0),
                                       [](auto a, auto b) { return a.first < b.first; });
      if (at != children.end() && at->first == byte) {
        node = static_cast<size_t>(at->second);
        continue;
      }
      children.insert(at, {byte, static_cast<int32_t>(nodes_.size())});
      node = nodes_.size();
      nodes_.emplace_back();
    }
    if (nodes_[node].token < 0) nodes_[node].token = static_cast<int32_t>(i);
    first_[static_cast<unsigned char>(tokens_[i].content[0])] = true;
  }
}

int32_t AddedTokenMatcher::Longest(std::string_view text, size_t at) const {
  size_t node = 0;
  int32_t found = -1;
  for (; at < text.size(); ++at) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const auto& children = nodes_[node].children;
    const auto next = std::lower_bound(children.begin(), children.end(), std::pair(byte, 0),
                                       [](auto a, auto b) { return a.first < b.first; });
    if (next == children.end() || next->first != byte) break;
    node = static_cast<size_t>(next->second);
    if (nodes_[node].token >= 0) found = nodes_[node].token;
  }
  return found;
}

std::vector<AddedTokenMatcher::Part> AddedTokenMatcher::Cut(std::string_view text,
                                                            Regex::Workspace* workspace) const {
  std::vector<Part> parts;
  size_t done = 0;
  const auto is_word = [&](size_t at) {
    size_t begin = 0, end = 0;
    const size_t from = at;
    NextCodepoint(text, &at);
    return word_.Find(text.substr(0, at), from, workspace, &begin, &end);
  };
  for (size_t at = 0; at < text.size();) {
    const int32_t found = first_[static_cast<unsigned char>(text[at])] ? Longest(text, at) : -1;
    if (found < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(found)];
    size_t begin = at, end = at + token.content.size();
    at = end;
    if (token.single_word) {
      const size_t before = begin == 0 ? 0 : CharacterBorder(text, begin - 1);
      if ((begin > 0 && is_word(before)) || (end < text.size() && is_word(end))) continue;
    }
    if (token.lstrip) {
      begin =
          done + StripSpace(text.substr(done, std::max(begin, done) - done), false, true).size();
    }
    if (token.rstrip) {
      end = text.size() - StripSpace(text.substr(end), true, false).size();
    }
    // HF tokenizers looks for tokens also in the space that rstrip has taken, and goes on behind
    // what it finds there.
    if (begin > done) parts.push_back({done, begin, -1});
    parts.push_back({begin, end, token.id});
    done = end;
  }
  if (done < text.size()) parts.push_back({done, text.size(), -1});
  return parts;
}

}  // namespace tern::text
