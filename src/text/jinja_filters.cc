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

// The text of str(value), counted.
std::string TextOf(const Value& value, Budget* budget) {
  std::string text = Str(value);
  budget->Bytes(text.size());
  return text;
}

Value Method(const char* name, const Value& value, const Args& args, Budget* budget) {
  return CallMethod(MakeString(TextOf(value, budget)), name, args, budget);
}

// "a.b.0" of a value.
Value Path(const Value& value, const std::string& path) {
  Value at = value;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    const std::string part = path.substr(begin, end - begin);
    int64_t index = 0;
    const auto read = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool number = !part.empty() && read.ec == std::errc() && *read.ptr == '\0';
    if (at.IsUndefined()) return at;
    at = Member(at, number ? MakeInt(index) : MakeString(part));
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
  std::string out;
  bool first = true;
  for (const Value& item : budget->Items(value)) {
    if (!first) out += separator;
    first = false;
    const std::string text =
        TextOf(attribute == nullptr ? item : Path(item, Str(*attribute)), budget);
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
  const std::string name = attribute == nullptr ? args.Text(0, "", "") : Str(*attribute);
  if (attribute == nullptr && !HasFilter(name))
    Fail(StrCat("the filter '", name, "' is not in the subset"));
  const Args rest = Rest(args, 1);
  for (const Value& item : budget->Items(value)) {
    if (attribute == nullptr) {
      out.push_back(CallFilter(name, item, rest, budget));
      continue;
    }
    Value member = Path(item, name);
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
  std::vector<Value> out;
  for (const Value& item : budget->Items(value)) {
    const Value subject = attribute ? Path(item, args.Text(0, "", "")) : item;
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
  return budget->Text(
      ToJson(value, static_cast<int>(spaces), flag(0, "ensure_ascii"), flag(3, "sort_keys")));
}

Value Items(const Value& value, const Args& args, Budget* budget) {
  args.Want("items", 0, 0);
  if (value.IsUndefined()) return MakeList({});
  if (value.AsDict() == nullptr) Fail("items wants a dictionary, not " + TypeName(value));
  return CallMethod(value, "items", {}, budget);
}

bool LessFolded(const Value& a, const Value& b) {
  if (a.String() != nullptr && b.String() != nullptr)
    return ToLower(*a.String()) < ToLower(*b.String());
  return Less(a, b);
}

// n log n comparisons, each of at most the text's length: counted before they are made.
void SortCounted(std::vector<Value>* items,
                 const std::function<bool(const Value&, const Value&)>& less, Budget* budget) {
  for (const Value& item : *items)
    budget->Bytes(32 * (item.String() == nullptr ? 1 : item.String()->size()));
  std::stable_sort(items->begin(), items->end(), less);
}

Value Sort(const Value& value, const Args& args, Budget* budget) {
  args.Want("sort", 0, 3, {"reverse", "case_sensitive", "attribute"});
  const Value* reverse = args.Get(0, "reverse");
  const Value* exact = args.Get(1, "case_sensitive");
  const Value* attribute = args.Get(2, "attribute");
  const std::string path = attribute == nullptr ? "" : Str(*attribute);
  const auto less = [&](const Value& a, const Value& b) {
    const Value x = path.empty() ? a : Path(a, path), y = path.empty() ? b : Path(b, path);
    return exact != nullptr && Truthy(*exact) ? Less(x, y) : LessFolded(x, y);
  };
  std::vector<Value> items = budget->Items(value);
  const bool down = reverse != nullptr && Truthy(*reverse);
  SortCounted(
      &items, [&](const Value& a, const Value& b) { return down ? less(b, a) : less(a, b); },
      budget);
  return budget->NewList(std::move(items));
}

Value DictSort(const Value& value, const Args& args, Budget* budget) {
  args.Want("dictsort", 0, 3, {"case_sensitive", "by", "reverse"});
  const Value* exact = args.Get(0, "case_sensitive");
  const int64_t member = args.Text(1, "by", "key") == "value" ? 1 : 0;
  const Value* reverse = args.Get(2, "reverse");
  const auto less = [&](const Value& a, const Value& b) {
    const Value x = Member(a, MakeInt(member)), y = Member(b, MakeInt(member));
    return exact != nullptr && Truthy(*exact) ? Less(x, y) : LessFolded(x, y);
  };
  std::vector<Value> items = budget->Items(Items(value, {}, budget));
  const bool down = reverse != nullptr && Truthy(*reverse);
  SortCounted(
      &items, [&](const Value& a, const Value& b) { return down ? less(b, a) : less(a, b); },
      budget);
  return budget->NewList(std::move(items));
}

Value Unique(const Value& value, const Args& args, Budget* budget) {
  args.Want("unique", 0, 2, {"case_sensitive", "attribute"});
  const Value* exact = args.Get(0, "case_sensitive");
  const Value* attribute = args.Get(1, "attribute");
  std::vector<Value> out, keys;
  for (const Value& item : budget->Items(value)) {
    Value key = attribute == nullptr ? item : Path(item, Str(*attribute));
    if (key.String() != nullptr && (exact == nullptr || !Truthy(*exact)))
      key = MakeString(ToLower(*key.String()));
    budget->Step(static_cast<int64_t>(keys.size()));
    if (std::any_of(keys.begin(), keys.end(), [&](const Value& k) { return Equal(k, key); }))
      continue;
    keys.push_back(std::move(key));
    out.push_back(item);
  }
  return budget->NewList(std::move(out));
}

Value Reverse(const Value& value, const Args& args, Budget* budget) {
  args.Want("reverse", 0, 0);
  std::vector<Value> items = budget->Items(value);
  std::reverse(items.begin(), items.end());
  if (value.String() == nullptr) return budget->NewList(std::move(items));
  std::string text;
  for (const Value& item : items) text += *item.String();
  return budget->Text(std::move(text));
}

Value Extreme(const Value& value, const Args& args, Budget* budget, bool largest) {
  args.Want(largest ? "max" : "min", 0, 2, {"case_sensitive", "attribute"});
  const Value* exact = args.Get(0, "case_sensitive");
  const Value* attribute = args.Get(1, "attribute");
  const Value* best = nullptr;
  const std::vector<Value> items = budget->Items(value);
  const auto key = [&](const Value& v) {
    return attribute == nullptr ? v : Path(v, Str(*attribute));
  };
  const bool same_case = exact != nullptr && Truthy(*exact);
  for (const Value& item : items) {
    if (best != nullptr) {
      const Value a = key(largest ? *best : item), b = key(largest ? item : *best);
      if (!(same_case ? Less(a, b) : LessFolded(a, b))) continue;
    }
    best = &item;
  }
  return best == nullptr ? MakeUndefined("an element of an empty list") : *best;
}

Value Sum(const Value& value, const Args& args, Budget* budget) {
  args.Want("sum", 0, 2, {"attribute", "start"});
  const Value* attribute = args.Get(0, "attribute");
  int64_t integers = args.Int(1, "start", 0);
  double floats = 0;
  bool exact = true;
  for (const Value& item : budget->Items(value)) {
    const Value number =
        attribute == nullptr || attribute->IsNone() ? item : Path(item, Str(*attribute));
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

Value ToInt(const Value& value, const Args& args, Budget*) {
  args.Want("int", 0, 2, {"default", "base"});
  int64_t integer = 0;
  if (IntOf(value, &integer)) return MakeInt(integer);
  if (const double* real = value.As<double>())
    return std::abs(*real) < 9e18 ? MakeInt(static_cast<int64_t>(*real))
                                  : MakeInt(args.Int(0, "default", 0));
  if (value.String() != nullptr) {
    std::string text = Str(value);
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

Value ToFloat(const Value& value, const Args& args, Budget*) {
  args.Want("float", 0, 1, {"default"});
  double real = 0;
  if (NumberOf(value, &real)) return {real};
  if (const std::string* text = value.String()) {
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
  const std::string text = TextOf(value, budget);
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
  for (const char c : TextOf(value, budget)) {
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
Value EndOf(const Value& value, bool last) {
  if (const std::string* text = value.String()) {
    if (!text->empty()) return Member(value, MakeInt(last ? -1 : 0));
  } else {
    const std::vector<Value> items = Elements(value);
    if (!items.empty()) return last ? items.back() : items.front();
  }
  return MakeUndefined("an element of an empty list");
}

const std::map<std::string_view, Filter>& Filters() {
  using V = const Value&;
  using A = const Args&;
  static const std::map<std::string_view, Filter> filters = {
      {"abs", Abs},
      {"attr", [](V v, A a, Budget*) { return Member(v, MakeString(a.Text(0, "name", ""))); }},
      {"capitalize", [](V v, A a, Budget* b) { return Method("capitalize", v, a, b); }},
      {"count", [](V v, A, Budget*) { return MakeInt(Length(v)); }},
      {"d", Default},
      {"default", Default},
      {"dictsort", DictSort},
      {"e", Escape},
      {"escape", Escape},
      {"first", [](V v, A, Budget*) { return EndOf(v, false); }},
      {"float", ToFloat},
      {"indent", Indent},
      {"int", ToInt},
      {"items", Items},
      {"join", Join},
      {"last", [](V v, A, Budget*) { return EndOf(v, true); }},
      {"length", [](V v, A, Budget*) { return MakeInt(Length(v)); }},
      {"list", [](V v, A, Budget* b) { return b->NewList(b->Items(v)); }},
      {"lower", [](V v, A a, Budget* b) { return Method("lower", v, a, b); }},
      {"map", Map},
      {"max", [](V v, A a, Budget* b) { return Extreme(v, a, b, true); }},
      {"min", [](V v, A a, Budget* b) { return Extreme(v, a, b, false); }},
      {"reject", [](V v, A a, Budget* b) { return Choose(v, a, b, false, false); }},
      {"rejectattr", [](V v, A a, Budget* b) { return Choose(v, a, b, true, false); }},
      {"replace", [](V v, A a, Budget* b) { return Method("replace", v, a, b); }},
      {"reverse", Reverse},
      {"round", Round},
      {"safe", [](V v, A, Budget* b) { return b->Text(Str(v)); }},
      {"select", [](V v, A a, Budget* b) { return Choose(v, a, b, false, true); }},
      {"selectattr", [](V v, A a, Budget* b) { return Choose(v, a, b, true, true); }},
      {"sort", Sort},
      {"string", [](V v, A, Budget* b) { return b->Text(Str(v)); }},
      {"sum", Sum},
      {"title", [](V v, A a, Budget* b) { return Method("title", v, a, b); }},
      {"tojson", ToJsonFilter},
      {"trim", [](V v, A a, Budget* b) { return Method("strip", v, a, b); }},
      {"unique", Unique},
      {"upper", [](V v, A a, Budget* b) { return Method("upper", v, a, b); }},
      {"wordcount", [](V v, A, Budget* b) { return MakeInt(Length(Method("split", v, {}, b))); }},
  };
  return filters;
}

}  // namespace

bool HasFilter(std::string_view name) { return Filters().contains(name); }

Value CallFilter(std::string_view name, const Value& value, const Args& args, Budget* budget) {
  budget->Step();
  return Filters().at(name)(value, args, budget);
}

}  // namespace tern::text::jinja
