// See jinja_value.h.
#include "text/jinja_value.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "text/unicode.h"

namespace tern::text::jinja {
namespace {

constexpr int kMaxDepth = 64;  // Of lists and dictionaries: destructors and printing recurse

void AppendEscaped(std::string* out, const char* format, uint32_t value) {
  char buffer[16];
  const int size = std::snprintf(buffer, sizeof(buffer), format, value);
  out->append(buffer, static_cast<size_t>(size));
}

// repr() of a str: single quotes unless only those are inside.
std::string StringRepr(const std::string& text) {
  const bool use_double =
      text.find('\'') != std::string::npos && text.find('"') == std::string::npos;
  const char quote = use_double ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const uint32_t c = NextCodepoint(text, &at);
    if (c == static_cast<uint32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c < 0x20 || (c >= 0x7F && c <= 0xA0) || c == 0xAD) {
      AppendEscaped(&out, "\\x%02x", c);
    } else if (c != ' ' && IsWhiteSpace(c)) {
      AppendEscaped(&out, "\\u%04x", c);
    } else {
      out.append(text, begin, at - begin);
    }
  }
  return out + quote;
}

int DepthOf(const Value& value) {
  if (const auto* list = value.AsList()) return list->depth;
  if (const auto* dict = value.AsDict()) return dict->depth;
  return 0;
}

int CheckedDepth(int inner) {
  if (inner >= kMaxDepth)
    throw TemplateError{StrCat("lists nested deeper than ", kMaxDepth, " levels"), true};
  return inner + 1;
}

}  // namespace

void Fail(std::string message) { throw TemplateError{std::move(message)}; }

const List* Value::AsList() const {
  const auto* pointer = As<ListPtr>();
  return pointer == nullptr ? nullptr : pointer->get();
}
const Dict* Value::AsDict() const {
  const auto* pointer = As<DictPtr>();
  return pointer == nullptr ? nullptr : pointer->get();
}

Value MakeUndefined(std::string name) { return {Undefined{std::move(name)}}; }
Value MakeNone() { return {None{}}; }
Value MakeBool(bool value) { return {value}; }
Value MakeInt(int64_t value) { return {value}; }
Value MakeString(std::string text) { return {std::move(text)}; }

Value MakeList(std::vector<Value> items, bool tuple) {
  auto list = std::make_shared<List>();
  int deepest = 0;
  for (const Value& item : items) deepest = std::max(deepest, DepthOf(item));
  list->depth = CheckedDepth(deepest);
  list->items = std::move(items);
  list->tuple = tuple;
  return {Value::ListPtr(std::move(list))};
}

Value MakeDict(std::vector<std::pair<Value, Value>> items) {
  auto dict = std::make_shared<Dict>();
  int deepest = 0;
  for (const auto& [key, value] : items)
    deepest = std::max({deepest, DepthOf(key), DepthOf(value)});
  dict->depth = CheckedDepth(deepest);
  dict->items = std::move(items);
  return {Value::DictPtr(std::move(dict))};
}

std::string TypeName(const Value& value) {
  if (const auto* undefined = value.As<Undefined>())
    return undefined->name.empty() ? "undefined" : "'" + undefined->name + "', which is undefined";
  static constexpr std::array kNames = {"undefined",  "none",        "a bool", "an int",
                                        "a float",    "a string",    "a list", "a dictionary",
                                        "a function", "a namespace", "a loop"};
  return kNames[value.data.index()];
}

bool Truthy(const Value& value) {
  if (const auto* flag = value.As<bool>()) return *flag;
  if (const auto* integer = value.As<int64_t>()) return *integer != 0;
  if (const auto* number = value.As<double>()) return *number != 0;
  if (const auto* text = value.String()) return !text->empty();
  if (const auto* list = value.AsList()) return !list->items.empty();
  if (const auto* dict = value.AsDict()) return !dict->items.empty();
  return !value.IsUndefined() && !value.IsNone();
}

bool IntOf(const Value& value, int64_t* out) {
  if (const auto* flag = value.As<bool>()) {
    *out = *flag ? 1 : 0;
    return true;
  }
  if (const auto* integer = value.As<int64_t>()) {
    *out = *integer;
    return true;
  }
  return false;
}

bool NumberOf(const Value& value, double* out) {
  if (const auto* number = value.As<double>()) {
    *out = *number;
    return true;
  }
  int64_t integer = 0;
  if (!IntOf(value, &integer)) return false;
  *out = static_cast<double>(integer);
  return true;
}

bool Equal(const Value& a, const Value& b) {
  int64_t left = 0, right = 0;
  if (IntOf(a, &left) && IntOf(b, &right)) return left == right;
  double x = 0, y = 0;
  if (NumberOf(a, &x) && NumberOf(b, &y)) return x == y;
  if (a.data.index() != b.data.index()) return false;
  if (a.IsUndefined() || a.IsNone()) return true;
  if (const auto* text = a.String()) return *text == *b.String();
  if (const auto* list = a.AsList()) {
    return list->tuple == b.AsList()->tuple &&
           std::equal(list->items.begin(), list->items.end(), b.AsList()->items.begin(),
                      b.AsList()->items.end(), Equal);
  }
  if (const auto* dict = a.AsDict()) {
    if (dict->items.size() != b.AsDict()->items.size()) return false;
    for (const auto& [key, value] : dict->items) {
      const Value* other = Find(*b.AsDict(), key);
      if (other == nullptr || !Equal(value, *other)) return false;
    }
    return true;
  }
  if (const auto* callable = a.As<Value::CallablePtr>())
    return *callable == *b.As<Value::CallablePtr>();
  if (auto* const* space = a.As<Namespace*>()) return *space == *b.As<Namespace*>();
  return *a.As<Value::LoopPtr>() == *b.As<Value::LoopPtr>();
}

bool Less(const Value& a, const Value& b) {
  int64_t left = 0, right = 0;
  if (IntOf(a, &left) && IntOf(b, &right)) return left < right;
  double x = 0, y = 0;
  if (NumberOf(a, &x) && NumberOf(b, &y)) return x < y;
  if (a.String() != nullptr && b.String() != nullptr) return *a.String() < *b.String();
  if (a.AsList() != nullptr && b.AsList() != nullptr) {
    const auto &p = a.AsList()->items, &q = b.AsList()->items;
    for (size_t i = 0; i < p.size() && i < q.size(); ++i)
      if (!Equal(p[i], q[i])) return Less(p[i], q[i]);
    return p.size() < q.size();
  }
  Fail(TypeName(a) + " and " + TypeName(b) + " have no order");
}

const Value* Find(const Dict& dict, const Value& key) {
  for (const auto& [name, value] : dict.items)
    if (Equal(name, key)) return &value;
  return nullptr;
}

const Value* Find(const Dict& dict, std::string_view key) {
  for (const auto& [name, value] : dict.items)
    if (name.String() != nullptr && *name.String() == key) return &value;
  return nullptr;
}

std::vector<Value> Elements(const Value& value) {
  std::vector<Value> out;
  if (const auto* list = value.AsList()) return list->items;
  if (const auto* dict = value.AsDict()) {
    for (const auto& [key, unused] : dict->items) out.push_back(key);
  } else if (const auto* text = value.String()) {
    for (size_t at = 0; at < text->size();) {
      const size_t begin = at;
      NextCodepoint(*text, &at);
      out.push_back(MakeString(text->substr(begin, at - begin)));
    }
  } else if (!value.IsUndefined()) {
    Fail(TypeName(value) + " cannot be iterated over");
  }
  return out;
}

int64_t Length(const Value& value) {
  if (const auto* list = value.AsList()) return static_cast<int64_t>(list->items.size());
  if (const auto* dict = value.AsDict()) return static_cast<int64_t>(dict->items.size());
  if (const auto* text = value.String()) return CountCodepoints(*text);
  if (value.IsUndefined()) return 0;
  Fail(TypeName(value) + " has no length");
}

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 64> buffer{};
  const auto scientific = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                        std::chars_format::scientific);
  std::string text(buffer.data(), scientific.ptr);
  const int exponent = std::stoi(text.substr(text.find('e') + 1));
  if (exponent < -4 || exponent >= 16) return text;  // Both write two digits at least
  const auto fixed =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed);
  text.assign(buffer.data(), fixed.ptr);
  return text.find('.') == std::string::npos ? text + ".0" : text;
}

std::string Str(const Value& value) {
  if (const auto* text = value.String()) return *text;
  return value.IsUndefined() ? "" : Repr(value);
}

std::string Repr(const Value& value) {
  if (value.IsUndefined()) return "Undefined";
  if (value.IsNone()) return "None";
  if (const auto* flag = value.As<bool>()) return *flag ? "True" : "False";
  if (const auto* integer = value.As<int64_t>()) return std::to_string(*integer);
  if (const auto* number = value.As<double>()) return FloatRepr(*number);
  if (const auto* text = value.String()) return StringRepr(*text);
  std::string out;
  if (const auto* list = value.AsList()) {
    for (const Value& item : list->items) out += (out.empty() ? "" : ", ") + Repr(item);
    if (!list->tuple) return "[" + out + "]";
    return "(" + out + (list->items.size() == 1 ? ",)" : ")");
  }
  if (const auto* dict = value.AsDict()) {
    for (const auto& [key, item] : dict->items)
      out += (out.empty() ? "" : ", ") + Repr(key) + ": " + Repr(item);
    return "{" + out + "}";
  }
  Fail(TypeName(value) + " cannot be printed");
}

}  // namespace tern::text::jinja
