// Methods of Python's str, dict and list; members and slices.
#include <algorithm>
#include <cstring>
#include <map>

#include "base/error.h"
#include "text/jinja_builtins.h"
#include "text/unicode.h"

namespace tern::text::jinja {
namespace {

using StringMethod = Value (*)(const std::string&, const Args&, Budget*);

bool InSet(uint32_t c, const std::vector<uint32_t>& set) {
  return std::find(set.begin(), set.end(), c) != set.end();
}

Value Strip(const std::string& text, const Args& args, Budget* budget, bool left, bool right) {
  args.Want("strip", 0, 1, {"chars"});
  const Value* given = args.Get(0, "chars");
  std::vector<uint32_t> set;
  const bool any_space = given == nullptr || given->IsNone();
  if (!any_space) {
    const std::string chars = args.Text(0, "chars", "");
    for (size_t at = 0; at < chars.size();) set.push_back(NextCodepoint(chars, &at));
  }
  budget->Bytes(2 * text.size() + set.size());
  budget->Step(static_cast<int64_t>(text.size() / 64 * set.size()));
  const std::vector<size_t> offsets = CodepointOffsets(text);
  const auto drop = [&](size_t i) {
    size_t at = offsets[i];
    const uint32_t c = NextCodepoint(text, &at);
    return any_space ? IsPythonSpace(c) : InSet(c, set);
  };
  size_t begin = 0, end = offsets.size() - 1;
  while (left && begin < end && drop(begin)) ++begin;
  while (right && begin < end && drop(end - 1)) --end;
  return budget->Text(text.substr(offsets[begin], offsets[end] - offsets[begin]));
}

Value SplitSpace(const std::string& text, int64_t most, Budget* budget) {
  std::vector<Value> parts;
  size_t at = 0;
  while (true) {
    size_t next = at;
    while (at < text.size() && IsPythonSpace(NextCodepoint(text, &next))) at = next;
    if (at >= text.size()) break;
    if (most >= 0 && static_cast<int64_t>(parts.size()) == most) {
      Args none;
      parts.push_back(Strip(text.substr(at), none, budget, false, true));
      break;
    }
    const size_t begin = at;
    for (next = at; at < text.size() && !IsPythonSpace(NextCodepoint(text, &next)); at = next) {
    }
    parts.push_back(budget->Text(text.substr(begin, at - begin)));
  }
  return budget->NewList(std::move(parts));
}

// rsplit, as a split of the reversed text: that is linear.
Value SplitBackwards(const std::string& text, const std::string& separator, int64_t most,
                     Budget* budget) {
  budget->Bytes(2 * text.size());
  const std::string_view whole = text;
  const std::string reversed(text.rbegin(), text.rend());
  const std::string mark(separator.rbegin(), separator.rend());
  std::vector<Value> parts;
  size_t begin = 0;
  while (most < 0 || static_cast<int64_t>(parts.size()) < most) {
    const size_t at = FindText(reversed, mark, begin);
    if (at == std::string::npos) break;
    parts.push_back(budget->Text(std::string(whole.substr(text.size() - at, at - begin))));
    begin = at + mark.size();
  }
  parts.push_back(budget->Text(text.substr(0, text.size() - begin)));
  std::reverse(parts.begin(), parts.end());
  return budget->NewList(std::move(parts));
}

Value Split(const std::string& text, const Args& args, Budget* budget, bool from_right) {
  args.Want("split", 0, 2, {"sep", "maxsplit"});
  const Value* given = args.Get(0, "sep");
  const int64_t most = args.Int(1, "maxsplit", -1);
  if (given == nullptr || given->IsNone()) {
    if (from_right && most >= 0) Fail("rsplit at white space with maxsplit is not in the subset");
    return SplitSpace(text, most, budget);
  }
  const std::string separator = args.Text(0, "sep", "");
  if (separator.empty()) Fail("split at an empty separator");
  if (from_right) return SplitBackwards(text, separator, most, budget);
  std::vector<Value> parts;
  size_t begin = 0;
  while (most < 0 || static_cast<int64_t>(parts.size()) < most) {
    const size_t at = FindText(text, separator, begin);
    if (at == std::string::npos) break;
    parts.push_back(budget->Text(text.substr(begin, at - begin)));
    begin = at + separator.size();
  }
  parts.push_back(budget->Text(text.substr(begin)));
  return budget->NewList(std::move(parts));
}

Value SplitLines(const std::string& text, const Args& args, Budget* budget) {
  args.Want("splitlines", 0, 1, {"keepends"});
  const Value* given = args.Get(0, "keepends");
  const bool keep = given != nullptr && Truthy(*given);
  std::vector<Value> lines;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin, next = begin;
    while (end < text.size()) {
      const uint32_t c = NextCodepoint(text, &next);
      if ((c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
          c == 0x2029) {
        if (c == '\r' && next < text.size() && text[next] == '\n') ++next;
        break;
      }
      end = next;
    }
    lines.push_back(budget->Text(text.substr(begin, (keep ? next : end) - begin)));
    begin = next;
  }
  return budget->NewList(std::move(lines));
}

Value Replace(const std::string& text, const Args& args, Budget* budget) {
  args.Want("replace", 2, 3, {"old", "new", "count"});
  const std::string old = args.Text(0, "old", ""), fresh = args.Text(1, "new", "");
  const Value* limit = args.Get(2, "count");
  int64_t left = limit == nullptr || limit->IsNone() ? -1 : args.Int(2, "count", -1);
  std::string out;
  const auto put = [&](std::string_view part) {
    budget->Bytes(part.size());
    out += part;
  };
  size_t at = 0;
  while (left != 0) {
    const size_t found = FindText(text, old, at);
    if (found == std::string::npos || found > text.size()) break;
    put(std::string_view(text).substr(at, found - at));
    put(fresh);
    if (left > 0) --left;
    at = found + old.size();
    if (!old.empty()) continue;
    if (at >= text.size()) return MakeString(std::move(out));
    size_t next = at;  // An empty text is found before each character and at the end
    NextCodepoint(text, &next);
    put(std::string_view(text).substr(at, next - at));
    at = next;
  }
  put(std::string_view(text).substr(std::min(at, text.size())));
  return MakeString(std::move(out));
}

// The first letter of each word (title) or of the text (capitalize) in upper case, the others in
// lower case.
Value Capitals(const std::string& text, const Args& args, Budget* budget, bool every_word) {
  args.Want(every_word ? "title" : "capitalize", 0, 0);
  budget->Bytes(16 * text.size());  // A text for each letter
  std::string out;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const uint32_t c = NextCodepoint(text, &at);
    const std::string letter = text.substr(begin, at - begin);
    out += inside ? ToLower(letter) : ToUpper(letter);
    inside = every_word ? IsCased(c) : true;
  }
  return budget->Text(std::move(out));
}

Value Affix(const std::string& text, const Args& args, Budget* budget, bool start) {
  args.Want(start ? "startswith" : "endswith", 1, 1);
  const auto fits = [&](const Value& value) {
    if (value.String() == nullptr) Fail("startswith and endswith want a text");
    budget->Step();
    budget->Bytes(std::min(text.size(), value.String()->size()) / 16);
    return start ? text.starts_with(*value.String()) : text.ends_with(*value.String());
  };
  const Value& given = args.positional[0];
  if (const List* list = given.AsList(); list != nullptr && list->tuple)
    return MakeBool(std::any_of(list->items.begin(), list->items.end(), fits));
  return MakeBool(fits(given));
}

// Index in code points, -1 when it is not there.
Value IndexOf(const std::string& text, const Args& args, bool last) {
  args.Want("find", 1, 1);
  const std::string what = args.Text(0, "sub", "");
  const size_t at = last ? FindLastText(text, what) : FindText(text, what, 0);
  if (at == std::string::npos) return MakeInt(-1);
  return MakeInt(CountCodepoints(std::string_view(text).substr(0, at)));
}

Value CountText(const std::string& text, const Args& args, Budget*) {
  args.Want("count", 1, 1);
  const std::string what = args.Text(0, "sub", "");
  if (what.empty()) return MakeInt(CountCodepoints(text) + 1);
  int64_t count = 0;
  for (size_t at = FindText(text, what, 0); at != std::string::npos;
       at = FindText(text, what, at + what.size()))
    ++count;
  return MakeInt(count);
}

Value JoinText(const std::string& text, const Args& args, Budget* budget) {
  args.Want("join", 1, 1);
  std::string out;
  bool first = true;
  for (const Value& item : Elements(args.positional[0], budget)) {
    if (item.String() == nullptr) Fail("join wants texts, not " + TypeName(item));
    budget->Bytes(text.size() + item.String()->size());
    if (!first) out += text;
    first = false;
    out += *item.String();
  }
  return MakeString(std::move(out));
}

template <class Fits>
Value Every(const std::string& text, Budget* budget, Fits fits) {
  budget->Bytes(8 * text.size());  // Looks each letter up
  bool all = !text.empty();
  for (size_t at = 0; at < text.size();) all &= fits(NextCodepoint(text, &at));
  return MakeBool(all);
}

Value Cased(const std::string& text, Budget* budget, std::string (*map)(std::string_view)) {
  budget->Bytes(4 * text.size());  // Looks each letter up
  return budget->Text(map(text));
}

Value WithoutAffix(const std::string& text, const Args& args, Budget* budget, bool prefix) {
  args.Want("removeprefix", 1, 1);
  const std::string what = args.Text(0, "", "");
  if (prefix && text.starts_with(what)) return budget->Text(text.substr(what.size()));
  if (!prefix && text.ends_with(what))
    return budget->Text(text.substr(0, text.size() - what.size()));
  return budget->Text(text);
}

const std::map<std::string_view, StringMethod>& StringMethods() {
  using S = const std::string&;
  using A = const Args&;
  using B = Budget*;
  static const std::map<std::string_view, StringMethod> methods = {
      {"capitalize", [](S s, A a, B b) { return Capitals(s, a, b, false); }},
      {"count", CountText},
      {"endswith", [](S s, A a, B b) { return Affix(s, a, b, false); }},
      {"find", [](S s, A a, B) { return IndexOf(s, a, false); }},
      {"isalpha", [](S s, A, B b) { return Every(s, b, IsLetter); }},
      {"isdigit",
       [](S s, A, B b) { return Every(s, b, [](uint32_t c) { return c >= '0' && c <= '9'; }); }},
      {"isspace", [](S s, A, B b) { return Every(s, b, IsPythonSpace); }},
      {"join", JoinText},
      {"lower", [](S s, A, B b) { return Cased(s, b, ToLower); }},
      {"lstrip", [](S s, A a, B b) { return Strip(s, a, b, true, false); }},
      {"removeprefix", [](S s, A a, B b) { return WithoutAffix(s, a, b, true); }},
      {"removesuffix", [](S s, A a, B b) { return WithoutAffix(s, a, b, false); }},
      {"replace", Replace},
      {"rfind", [](S s, A a, B) { return IndexOf(s, a, true); }},
      {"rsplit", [](S s, A a, B b) { return Split(s, a, b, true); }},
      {"rstrip", [](S s, A a, B b) { return Strip(s, a, b, false, true); }},
      {"split", [](S s, A a, B b) { return Split(s, a, b, false); }},
      {"splitlines", SplitLines},
      {"startswith", [](S s, A a, B b) { return Affix(s, a, b, true); }},
      {"strip", [](S s, A a, B b) { return Strip(s, a, b, true, true); }},
      {"title", [](S s, A a, B b) { return Capitals(s, a, b, true); }},
      {"upper", [](S s, A, B b) { return Cased(s, b, ToUpper); }},
  };
  return methods;
}

Value CallDict(const Dict& dict, std::string_view name, const Args& args, Budget* budget) {
  if (name == "get") {
    args.Want("get", 1, 2);
    const Value* found = Find(dict, args.positional[0], budget);
    if (found != nullptr) return *found;
    return args.positional.size() > 1 ? args.positional[1] : MakeNone();
  }
  args.Want(name, 0, 0);
  std::vector<Value> out;
  for (const auto& [key, value] : dict.items) {
    if (name == "keys") out.push_back(key);
    if (name == "values") out.push_back(value);
    if (name == "items") out.push_back(MakeList({key, value}, /*tuple=*/true));
  }
  return budget->NewList(std::move(out));
}

Value CallList(const List& list, std::string_view name, const Args& args, Budget* budget) {
  args.Want(name, 1, 1);
  int64_t count = 0;
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (!Equal(list.items[i], args.positional[0], budget)) continue;
    if (name == "index") return MakeInt(static_cast<int64_t>(i));
    ++count;
  }
  if (name == "index") Fail("index: it is not in the list");
  return MakeInt(count);
}

}  // namespace

size_t FindText(std::string_view text, std::string_view what, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  const void* found = memmem(text.data() + from, text.size() - from, what.data(), what.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

size_t FindLastText(std::string_view text, std::string_view what) {
  constexpr size_t kShort = 64;  // Compared anew at each place
  if (what.size() <= kShort) return text.rfind(what);
  const std::string text_reversed(text.rbegin(), text.rend());
  const size_t found = FindText(text_reversed, std::string(what.rbegin(), what.rend()), 0);
  return found == std::string::npos ? found : text.size() - found - what.size();
}

const Value* Args::Get(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named)
    if (key == name) return &value;
  return nullptr;
}
int64_t Args::Int(size_t index, std::string_view name, int64_t fallback) const {
  const Value* value = Get(index, name);
  if (value == nullptr) return fallback;
  int64_t integer = 0;
  if (!IntOf(*value, &integer)) Fail(StrCat("want an int, found ", TypeName(*value)));
  return integer;
}
std::string Args::Text(size_t index, std::string_view name, std::string_view fallback) const {
  const Value* value = Get(index, name);
  if (value == nullptr) return std::string(fallback);
  if (value->String() == nullptr) Fail(StrCat("want a text, found ", TypeName(*value)));
  return *value->String();
}
void Args::Want(std::string_view callee, size_t least, size_t most,
                std::initializer_list<std::string_view> names) const {
  const size_t given = positional.size() + named.size();
  if (given < least || given > most)
    Fail(StrCat(callee, " has ", given, " arguments; want ", least, " to ", most));
  for (const auto& [name, value] : named) {
    if (std::find(names.begin(), names.end(), name) == names.end())
      Fail(StrCat(callee, " has no argument ", name));
  }
}

bool HasMethod(const Value& value, std::string_view name) {
  if (value.String() != nullptr) return StringMethods().contains(name);
  if (value.AsDict() != nullptr)
    return name == "items" || name == "keys" || name == "values" || name == "get";
  return value.AsList() != nullptr && (name == "index" || name == "count");
}

Value CallMethod(const Value& value, std::string_view name, const Args& args, Budget* budget) {
  budget->Step();
  if (const std::string* text = value.String()) {
    budget->Bytes(text->size() / 2);  // Searching takes time though it makes nothing
    for (const Value& arg : args.positional)
      if (arg.String() != nullptr) budget->Bytes(arg.String()->size() / 2);
    return StringMethods().at(name)(*text, args, budget);
  }
  if (const Dict* dict = value.AsDict()) return CallDict(*dict, name, args, budget);
  return CallList(*value.AsList(), name, args, budget);
}

Value Member(const Value& value, const Value& key, Budget* budget) {
  if (value.IsUndefined()) Fail(StrCat(TypeName(value), " has no ", Shown(key)));
  if (const Dict* dict = value.AsDict()) {
    const Value* found = Find(*dict, key, budget);
    return found == nullptr ? MakeUndefined(Shown(key)) : *found;
  }
  int64_t index = 0;
  if ((value.AsList() != nullptr || value.String() != nullptr) && IntOf(key, &index)) {
    const int64_t size = Length(value, budget);
    if (index < 0) index += size;
    if (index < 0 || index >= size) return MakeUndefined(StrCat("[", Shown(key), "]"));
    if (const List* list = value.AsList()) return list->items[static_cast<size_t>(index)];
    budget->Bytes(2 * value.String()->size());
    const std::vector<size_t> offsets = CodepointOffsets(*value.String());
    const auto i = static_cast<size_t>(index);
    return MakeString(value.String()->substr(offsets[i], offsets[i + 1] - offsets[i]));
  }
  return MakeUndefined(Shown(key));
}

Value Slice(const Value& value, const Value& begin, const Value& end, const Value& step,
            Budget* budget) {
  if (value.String() == nullptr && value.AsList() == nullptr)
    Fail(TypeName(value) + " has no slices");
  const int64_t size = Length(value, budget);
  int64_t stride = 1;
  if (!step.IsNone() && (!IntOf(step, &stride) || stride == 0 || stride == INT64_MIN))
    Fail("the step of a slice is no int, or 0");
  const auto border = [&](const Value& given, int64_t fallback) {
    int64_t at = 0;
    if (given.IsNone()) return fallback;
    if (!IntOf(given, &at)) Fail("a border of a slice is " + TypeName(given));
    if (at < 0) at = std::max(at, -size) + size - (at < -size && stride < 0 ? 1 : 0);
    return std::clamp<int64_t>(at, stride < 0 ? -1 : 0, stride < 0 ? size - 1 : size);
  };
  const int64_t first = border(begin, stride > 0 ? 0 : size - 1);
  const int64_t last = border(end, stride > 0 ? size : -1);
  if (value.String() != nullptr && stride == 1) {
    budget->Bytes(2 * value.String()->size());
    const std::vector<size_t> offsets = CodepointOffsets(*value.String());
    if (first >= last) return MakeString("");
    const size_t from = offsets[static_cast<size_t>(first)];
    return budget->Text(value.String()->substr(from, offsets[static_cast<size_t>(last)] - from));
  }
  const std::vector<Value> items = Elements(value, budget);
  std::vector<Value> chosen;
  for (int64_t i = first; stride > 0 ? i < last : i > last;) {
    chosen.push_back(items[static_cast<size_t>(i)]);
    if (__builtin_add_overflow(i, stride, &i)) break;
  }
  if (value.String() == nullptr) return budget->NewList(std::move(chosen), value.AsList()->tuple);
  std::string text;
  for (const Value& item : chosen) text += *item.String();
  return budget->Text(std::move(text));
}

}  // namespace tern::text::jinja
