// Filters (jinja2/filters.py says what each does).
#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>

#include "base/error.h"
#include "text/jinja_builtins.h"
#include "text/unicode.h"

namespace tern::text::jinja {
namespace {

using Filter = Value (*)(const Value&, const Args&, Budget*);

Value Method(const char* name, const Value& value, const Args& args, Budget* budget) {
  return CallMethod(MakeString(Str(value, budget)), name, args, budget);
}

// jinja2's title, which is not str.title: words begin behind white space and -({[< alone.
Value Title(const Value& value, const Args& args, Budget* budget) {
  args.Want("title", 0, 0);
  const std::string text = Str(value, budget);
  budget->Bytes(16 * text.size());  // A text for each letter
  std::string out;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const uint32_t c = NextCodepoint(text, &at);
    const std::string letter = text.substr(begin, at - begin);
    out += inside ? ToLower(letter) : ToUpper(letter);
    inside = !IsPythonSpace(c) &&
             (c >= 0x80 ||
              std::string_view("-({[<").find(static_cast<char>(c)) == std::string_view::npos);
  }
  return budget->Text(std::move(out));
}

// "a.b.0" of a value.
Value Path(const Value& value, const std::string& path, Budget* budget) {
  budget->Bytes(4 * path.size());
  Value at = value;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    const std::string part = path.substr(begin, end - begin);
    int64_t index = 0;
    const auto read = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool number = !part.empty() && read.ec == std::errc() && *read.ptr == '\0';
    if (at.IsUndefined()) return at;
    at = Member(at, number ? MakeInt(index) : MakeString(part), budget);
    begin = end + 1;
  }
  return at;
}

Args Rest(const Args& args, size_t from) {
  Args rest;
  for (size_t i = from; i < args.positional.size(); ++i)
    rest.positional.push_back(args.positional[i]);
  return rest;
}

Value Default(const Value& value, const Args& args, Budget*) {
  args.Want("default", 0, 2, {"default_value", "boolean"});
  const Value* fallback = args.Get(0, "default_value");
  const Value* boolean = args.Get(1, "boolean");
  if (value.IsUndefined() || (boolean != nullptr && Truthy(*boolean) && !Truthy(value)))
    return fallback == nullptr ? MakeString("") : *fallback;
  return value;
}

Value Join(const Value& value, const Args& args, Budget* budget) {
  args.Want("join", 0, 2, {"d", "attribute"});
  const std::string separator = args.Text(0, "d", "");
  const Value* attribute = args.Get(1, "attribute");
  const std::string name = attribute == nullptr ? "" : Str(*attribute, budget);
  std::string out;
  bool first = true;
  for (const Value& item : Elements(value, budget)) {
    if (!first) out += separator;
    first = false;
    const std::string text = Str(attribute == nullptr ? item : Path(item, name, budget), budget);
    budget->Bytes(separator.size());
    out += text;
  }
  return budget->Text(std::move(out));
}

Value Map(const Value& value, const Args& args, Budget* budget) {
  std::vector<Value> out;
  const Value* attribute = args.Get(SIZE_MAX, "attribute");
  const Value* fallback = args.Get(SIZE_MAX, "default");
  if (attribute == nullptr) args.Want("map", 1, SIZE_MAX);
  const std::string name = attribute == nullptr ? args.Text(0, "", "") : Str(*attribute, budget);
  if (attribute == nullptr && !HasFilter(name))
    Fail(StrCat("the filter '", name, "' is not in the subset"));
  const Args rest = Rest(args, 1);
  for (const Value& item : Elements(value, budget)) {
    if (attribute == nullptr) {
      out.push_back(CallFilter(name, item, rest, budget));
      continue;
    }
    Value member = Path(item, name, budget);
    out.push_back(member.IsUndefined() && fallback != nullptr ? *fallback : std::move(member));
  }
  return budget->NewList(std::move(out));
}

// select, reject, selectattr, rejectattr: the items whose test is `want`.
Value Choose(const Value& value, const Args& args, Budget* budget, bool attribute, bool want) {
  args.Want(attribute ? "selectattr" : "select", attribute ? 1 : 0, SIZE_MAX);
  const size_t skipped = attribute ? 1 : 0;
  const bool tested = args.positional.size() > skipped;
  const std::string test = tested ? args.Text(skipped, "", "") : "";
  if (tested && !HasTest(test)) Fail(StrCat("the test '", test, "' is not in the subset"));
  const Args rest = Rest(args, skipped + 1);
  const std::string name = attribute ? args.Text(0, "", "") : "";
  std::vector<Value> out;
  for (const Value& item : Elements(value, budget)) {
    const Value subject = attribute ? Path(item, name, budget) : item;
    const bool passed = tested ? CallTest(test, subject, rest, budget) : Truthy(subject);
    if (passed == want) out.push_back(item);
  }
  return budget->NewList(std::move(out));
}

Value ToJsonFilter(const Value& value, const Args& args, Budget* budget) {
  // transformers' own tojson: json.dumps without escapes for HTML.
  args.Want("tojson", 0, 4, {"ensure_ascii", "indent", "separators", "sort_keys"});
  if (const Value* separators = args.Get(2, "separators"); separators && !separators->IsNone())
    Fail("tojson with separators is not in the subset");
  const Value* indent = args.Get(1, "indent");
  const auto flag = [&](size_t i, const char* name) {
    const Value* given = args.Get(i, name);
    return given != nullptr && Truthy(*given);
  };
  const int64_t spaces =
      indent == nullptr || indent->IsNone() ? -1 : std::max<int64_t>(0, args.Int(1, "indent", 0));
  if (spaces > 16) Fail("tojson: indent above 16");
  const JsonStyle style{static_cast<int>(spaces), flag(0, "ensure_ascii"), flag(3, "sort_keys")};
  return MakeString(ToJson(value, style, budget));
}

Value Items(const Value& value, const Args& args, Budget* budget) {
  args.Want("items", 0, 0);
  if (value.IsUndefined()) return MakeList({});
  if (value.AsDict() == nullptr) Fail("items wants a dictionary, not " + TypeName(value));
  return CallMethod(value, "items", {}, budget);
}

// What a filter compares: an attribute, and texts in lower case unless case counts.
struct SortKey {
  SortKey(const Value* attribute, const Value* case_sensitive, Budget* budget)
      : path(attribute == nullptr ? "" : Str(*attribute, budget)),
        same_case(case_sensitive != nullptr && Truthy(*case_sensitive)) {}

  Value Of(const Value& item, Budget* budget) const {
    Value key = path.empty() ? item : Path(item, path, budget);
    if (same_case || key.String() == nullptr) return key;
    return CallMethod(key, "lower", {}, budget);
  }

  std::string path;
  bool same_case;
};

// Stable, each key made once.
Value Sorted(std::vector<Value> items, const SortKey& key, bool down, Budget* budget) {
  std::vector<std::pair<Value, Value>> keyed;  // Key, item
  for (Value& item : items) {
    Value of_item = key.Of(item, budget);
    keyed.emplace_back(std::move(of_item), std::move(item));
  }
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return down ? Less(b.first, a.first, budget) : Less(a.first, b.first, budget);
  });
  for (size_t i = 0; i < items.size(); ++i) items[i] = std::move(keyed[i].second);
  return budget->NewList(std::move(items));
}

Value Sort(const Value& value, const Args& args, Budget* budget) {
  args.Want("sort", 0, 3, {"reverse", "case_sensitive", "attribute"});
  const Value* reverse = args.Get(0, "reverse");
  const SortKey key(args.Get(2, "attribute"), args.Get(1, "case_sensitive"), budget);
  return Sorted(Elements(value, budget), key, reverse != nullptr && Truthy(*reverse), budget);
}

Value DictSort(const Value& value, const Args& args, Budget* budget) {
  args.Want("dictsort", 0, 3, {"case_sensitive", "by", "reverse"});
  const Value member = MakeString(args.Text(1, "by", "key") == "value" ? "1" : "0");
  const Value* reverse = args.Get(2, "reverse");
  const SortKey key(&member, args.Get(0, "case_sensitive"), budget);
  return Sorted(Elements(Items(value, {}, budget), budget), key,
                reverse != nullptr && Truthy(*reverse), budget);
}

Value Unique(const Value& value, const Args& args, Budget* budget) {
  args.Want("unique", 0, 2, {"case_sensitive", "attribute"});
  const SortKey key(args.Get(1, "attribute"), args.Get(0, "case_sensitive"), budget);
  std::vector<Value> out, keys;
  for (const Value& item : Elements(value, budget)) {
    Value fresh = key.Of(item, budget);
    if (std::any_of(keys.begin(), keys.end(),
                    [&](const Value& seen) { return Equal(seen, fresh, budget); }))
      continue;
    keys.push_back(std::move(fresh));
    out.push_back(item);
  }
  return budget->NewList(std::move(out));
}

Value Reverse(const Value& value, const Args& args, Budget* budget) {
  args.Want("reverse", 0, 0);
  std::vector<Value> items = Elements(value, budget);
  std::reverse(items.begin(), items.end());
  if (value.String() == nullptr) return budget->NewList(std::move(items));
  std::string text;
  for (const Value& item : items) text += *item.String();
  return budget->Text(std::move(text));
}

Value Extreme(const Value& value, const Args& args, Budget* budget, bool largest) {
  args.Want(largest ? "max" : "min", 0, 2, {"case_sensitive", "attribute"});
  const SortKey key(args.Get(1, "attribute"), args.Get(0, "case_sensitive"), budget);
  Value best = MakeUndefined("an element of an empty list"), best_key;
  bool first = true;
  for (const Value& item : Elements(value, budget)) {
    Value item_key = key.Of(item, budget);
    if (!first && !(largest ? Less(best_key, item_key, budget) : Less(item_key, best_key, budget)))
      continue;
    first = false;
    best = item;
    best_key = std::move(item_key);
  }
  return best;
}

Value Sum(const Value& value, const Args& args, Budget* budget) {
  args.Want("sum", 0, 2, {"attribute", "start"});
  const Value* attribute = args.Get(0, "attribute");
  const std::string path =
      attribute == nullptr || attribute->IsNone() ? "" : Str(*attribute, budget);
  int64_t integers = args.Int(1, "start", 0);
  double floats = 0;
  bool exact = true;
  for (const Value& item : Elements(value, budget)) {
    const Value number = path.empty() ? item : Path(item, path, budget);
    int64_t integer = 0;
    double real = 0;
    if (IntOf(number, &integer)) {
      if (__builtin_add_overflow(integers, integer, &integers)) Fail("sum: beyond 64 bits");
    } else if (NumberOf(number, &real)) {
      exact = false;
      floats += real;
    } else {
      Fail("sum wants numbers, not " + TypeName(number));
    }
  }
  return exact ? MakeInt(integers) : Value{floats + static_cast<double>(integers)};
}

Value ToInt(const Value& value, const Args& args, Budget* budget) {
  args.Want("int", 0, 2, {"default", "base"});
  int64_t integer = 0;
  if (IntOf(value, &integer)) return MakeInt(integer);
  if (const double* real = value.As<double>())
    return std::abs(*real) < 9e18 ? MakeInt(static_cast<int64_t>(*real))
                                  : MakeInt(args.Int(0, "default", 0));
  if (value.String() != nullptr) {
    std::string text = Str(value, budget);
    std::erase_if(text, [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '_'; });
    const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
    const char* end = text.data() + text.size();
    const auto base = static_cast<int>(args.Int(1, "base", 10));
    if (base != 10 && base != 16 && base != 8 && base != 2) Fail("int: base is not 2, 8, 10 or 16");
    auto read = std::from_chars(begin, end, integer, base);
    if (read.ec == std::errc() && read.ptr == end && begin != end) return MakeInt(integer);
    double real = 0;
    read = std::from_chars(begin, end, real);
    if (read.ec == std::errc() && read.ptr == end && std::abs(real) < 9e18)
      return MakeInt(static_cast<int64_t>(real));
  }
  return MakeInt(args.Int(0, "default", 0));
}

Value ToFloat(const Value& value, const Args& args, Budget* budget) {
  args.Want("float", 0, 1, {"default"});
  double real = 0;
  if (NumberOf(value, &real)) return {real};
  if (const std::string* text = value.String()) {
    budget->Bytes(text->size());
    const auto read = std::from_chars(text->data(), text->data() + text->size(), real);
    if (read.ec == std::errc() && read.ptr == text->data() + text->size()) return {real};
  }
  const Value* fallback = args.Get(0, "default");
  return fallback == nullptr ? Value{0.0} : *fallback;
}

Value Round(const Value& value, const Args& args, Budget*) {
  args.Want("round", 0, 2, {"precision", "method"});
  double real = 0;
  if (!NumberOf(value, &real)) Fail("round wants a number, not " + TypeName(value));
  const std::string method = args.Text(1, "method", "common");
  const int64_t precision = args.Int(0, "precision", 0);
  if (precision < 0 || precision > 15) Fail("round: precision is not 0 to 15");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  if (method == "ceil") return {std::ceil(real * scale) / scale};
  if (method == "floor") return {std::floor(real * scale) / scale};
  char buffer[512];  // Python rounds the exact decimal value half to even, as printf does
  const int size = std::snprintf(buffer, sizeof(buffer), "%.*f", static_cast<int>(precision), real);
  std::from_chars(buffer, buffer + size, real);
  return {real};
}

Value Abs(const Value& value, const Args& args, Budget*) {
  args.Want("abs", 0, 0);
  int64_t integer = 0;
  if (IntOf(value, &integer) && integer != INT64_MIN) return MakeInt(std::abs(integer));
  if (const double* real = value.As<double>()) return {std::abs(*real)};
  Fail("abs wants a number, not " + TypeName(value));
}

Value Indent(const Value& value, const Args& args, Budget* budget) {
  args.Want("indent", 0, 3, {"width", "first", "blank"});
  const Value* width = args.Get(0, "width");
  const Value *first = args.Get(1, "first"), *blank = args.Get(2, "blank");
  if (width != nullptr && width->String() == nullptr && args.Int(0, "width", 4) > 1000)
    Fail("indent above 1000");
  const std::string space =
      width != nullptr && width->String() != nullptr
          ? *width->String()
          : std::string(static_cast<size_t>(std::max<int64_t>(0, args.Int(0, "width", 4))), ' ');
  const std::string text = Str(value, budget);
  std::string out = first != nullptr && Truthy(*first) ? space : "";
  for (size_t at = 0; at < text.size(); ++at) {
    out += text[at];
    if (text[at] != '\n') continue;
    const bool empty = at + 1 == text.size() || text[at + 1] == '\n';
    if (!empty || (blank != nullptr && Truthy(*blank))) {
      budget->Bytes(space.size());
      out += space;
    }
  }
  return budget->Text(std::move(out));
}

Value Escape(const Value& value, const Args& args, Budget* budget) {
  args.Want("escape", 0, 0);
  std::string out;
  for (const char c : Str(value, budget)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return budget->Text(std::move(out));
}

// The first or last element; both ends of lists, strings and keys.
Value EndOf(const Value& value, bool last, Budget* budget) {
  if (value.String() != nullptr || value.AsList() != nullptr) {
    if (Truthy(value)) return Member(value, MakeInt(last ? -1 : 0), budget);
  } else {
    const std::vector<Value> items = Elements(value, budget);
    if (!items.empty()) return last ? items.back() : items.front();
  }
  return MakeUndefined("an element of an empty list");
}

const std::map<std::string_view, Filter>& Filters() {
  using V = const Value&;
  using A = const Args&;
  using B = Budget*;
  static const std::map<std::string_view, Filter> filters = {
      {"abs", Abs},
      {"attr", [](V v, A a, B b) { return Member(v, MakeString(a.Text(0, "name", "")), b); }},
      {"capitalize", [](V v, A a, B b) { return Method("capitalize", v, a, b); }},
      {"count", [](V v, A, B b) { return MakeInt(Length(v, b)); }},
      {"d", Default},
      {"default", Default},
      {"dictsort", DictSort},
      {"e", Escape},
      {"escape", Escape},
      {"first", [](V v, A, B b) { return EndOf(v, false, b); }},
      {"float", ToFloat},
      {"indent", Indent},
      {"int", ToInt},
      {"items", Items},
      {"join", Join},
      {"last", [](V v, A, B b) { return EndOf(v, true, b); }},
      {"length", [](V v, A, B b) { return MakeInt(Length(v, b)); }},
      {"list", [](V v, A, B b) { return MakeList(Elements(v, b)); }},
      {"lower", [](V v, A a, B b) { return Method("lower", v, a, b); }},
      {"map", Map},
      {"max", [](V v, A a, B b) { return Extreme(v, a, b, true); }},
      {"min", [](V v, A a, B b) { return Extreme(v, a, b, false); }},
      {"reject", [](V v, A a, B b) { return Choose(v, a, b, false, false); }},
      {"rejectattr", [](V v, A a, B b) { return Choose(v, a, b, true, false); }},
      {"replace", [](V v, A a, B b) { return Method("replace", v, a, b); }},
      {"reverse", Reverse},
      {"round", Round},
      {"safe", [](V v, A, B b) { return MakeString(Str(v, b)); }},
      {"select", [](V v, A a, B b) { return Choose(v, a, b, false, true); }},
      {"selectattr", [](V v, A a, B b) { return Choose(v, a, b, true, true); }},
      {"sort", Sort},
      {"string", [](V v, A, B b) { return MakeString(Str(v, b)); }},
      {"sum", Sum},
      {"title", Title},
      {"tojson", ToJsonFilter},
      {"trim", [](V v, A a, B b) { return Method("strip", v, a, b); }},
      {"unique", Unique},
      {"upper", [](V v, A a, B b) { return Method("upper", v, a, b); }},
      {"wordcount", [](V v, A, B b) { return MakeInt(Length(Method("split", v, {}, b), b)); }},
  };
  return filters;
}

}  // namespace

bool HasFilter(std::string_view name) { return Filters().contains(name); }

Value CallFilter(std::string_view name, const Value& value, const Args& args, Budget* budget) {
  const Budget::Nested nested(budget);
  budget->Step();
  return Filters().at(name)(value, args, budget);
}

}  // namespace tern::text::jinja
