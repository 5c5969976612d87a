// See jinja_value.h.
#include "text/jinja_value.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "text/jinja_budget.h"
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

Size SizeOf(const Value& value) {
  if (const auto* text = value.String()) return {0, static_cast<int64_t>(text->size())};
  if (const auto* list = value.AsList()) return list->size;
  if (const auto* dict = value.AsDict()) return dict->size;
  if (const auto* loop = value.As<Value::LoopPtr>()) return (*loop)->list->size;
  if (const auto* callable = value.As<Value::CallablePtr>()) return SizeOf((*callable)->self);
  return {0, 0};
}

// The size of what holds values, one after the other.
class SizeSum {
 public:
  void Add(const Value& value) {
    const Size size = SizeOf(value);
    sum_.depth = std::max(sum_.depth, 1 + size.depth);
    // No overflow: each summand is at most a text in memory or kMaxWeight.
    if (sum_.weight <= kMaxWeight) sum_.weight += kItemWeight + size.weight;
  }
  Size Checked() const {
    if (sum_.depth > kMaxDepth)
      throw TemplateError{StrCat("lists nested deeper than ", kMaxDepth, " levels"), true};
    if (sum_.weight > kMaxWeight)
      throw TemplateError{StrCat("a list with more than ", kMaxWeight / kItemWeight, " items or ",
                                 kMaxWeight, " bytes, those of its items counted"),
                          true};
    return sum_;
  }

 private:
  static constexpr int64_t kItemWeight = 16;
  Size sum_;
};

}  // namespace

void Fail(std::string message) { throw TemplateError{std::move(message)}; }

const std::string* Value::String() const {
  const auto* pointer = As<StringPtr>();
  return pointer == nullptr ? nullptr : pointer->get();
}
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
Value MakeString(std::string text) {
  return {std::make_shared<const std::string>(std::move(text))};
}

Value MakeList(std::vector<Value> items, bool tuple) {
  auto list = std::make_shared<List>();
  SizeSum sum;
  for (const Value& item : items) sum.Add(item);
  list->size = sum.Checked();
  list->items = std::move(items);
  list->tuple = tuple;
  return {Value::ListPtr(std::move(list))};
}

Value MakeDict(std::vector<std::pair<Value, Value>> items) {
  auto dict = std::make_shared<Dict>();
  SizeSum sum;
  for (const auto& [key, value] : items) {
    sum.Add(key);
    sum.Add(value);
  }
  dict->size = sum.Checked();
  dict->items = std::move(items);
  return {Value::DictPtr(std::move(dict))};
}

Value MakeMethod(std::string name, Value self) {
  SizeSum sum;  // A method holds its object, which may hold methods
  sum.Add(self);
  sum.Checked();
  auto method = std::make_shared<Callable>();
  method->kind = Callable::Kind::kMethod;
  method->name = std::move(name);
  method->self = std::move(self);
  return {Value::CallablePtr(std::move(method))};
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

namespace {
// Comparing reads 16 bytes in the time that making one takes.
bool EqualText(const std::string& a, const std::string& b, Budget* budget) {
  if (a.size() != b.size()) return false;
  budget->Bytes(a.size() / 16);
  return a == b;
}

bool EqualDict(const Dict& a, const Dict& b, Budget* budget) {
  if (a.items.size() != b.items.size()) return false;
  for (const auto& [key, value] : a.items) {
    const Value* other = Find(b, key, budget);
    if (other == nullptr || !Equal(value, *other, budget)) return false;
  }
  return true;
}
}  // namespace

bool Equal(const Value& a, const Value& b, Budget* budget) {
  budget->Step();
  int64_t left = 0, right = 0;
  if (IntOf(a, &left) && IntOf(b, &right)) return left == right;
  double x = 0, y = 0;
  if (NumberOf(a, &x) && NumberOf(b, &y)) return x == y;
  if (a.data.index() != b.data.index()) return false;
  if (a.IsUndefined() || a.IsNone()) return true;
  if (const auto* text = a.String()) return EqualText(*text, *b.String(), budget);
  if (const auto* list = a.AsList()) {
    const List* other = b.AsList();
    return list == other ||
           (list->tuple == other->tuple &&
            std::equal(list->items.begin(), list->items.end(), other->items.begin(),
                       other->items.end(),
                       [&](const Value& p, const Value& q) { return Equal(p, q, budget); }));
  }
  if (const auto* dict = a.AsDict())
    return dict == b.AsDict() || EqualDict(*dict, *b.AsDict(), budget);
  if (const auto* callable = a.As<Value::CallablePtr>())
    return *callable == *b.As<Value::CallablePtr>();
  if (auto* const* space = a.As<Namespace*>()) return *space == *b.As<Namespace*>();
  return *a.As<Value::LoopPtr>() == *b.As<Value::LoopPtr>();
}

bool Less(const Value& a, const Value& b, Budget* budget) {
  budget->Step();
  int64_t left = 0, right = 0;
  if (IntOf(a, &left) && IntOf(b, &right)) return left < right;
  double x = 0, y = 0;
  if (NumberOf(a, &x) && NumberOf(b, &y)) return x < y;
  if (a.String() != nullptr && b.String() != nullptr) {
    budget->Bytes(std::min(a.String()->size(), b.String()->size()) / 16);
    return *a.String() < *b.String();
  }
  if (a.AsList() != nullptr && b.AsList() != nullptr) {
    const auto &p = a.AsList()->items, &q = b.AsList()->items;
    for (size_t i = 0; i < p.size() && i < q.size(); ++i)
      if (!Equal(p[i], q[i], budget)) return Less(p[i], q[i], budget);
    return p.size() < q.size();
  }
  Fail(TypeName(a) + " and " + TypeName(b) + " have no order");
}

const Value* Find(const Dict& dict, const Value& key, Budget* budget) {
  const std::string* text = key.String();
  // A step for 16 names, whose lengths are compared.
  if (text != nullptr) budget->Step(static_cast<int64_t>(dict.items.size() / 16));
  for (const auto& [name, value] : dict.items) {
    if (text == nullptr ? Equal(name, key, budget)
                        : name.String() != nullptr && EqualText(*name.String(), *text, budget))
      return &value;
  }
  return nullptr;
}

const Value* Find(const Dict& dict, std::string_view key) {
  for (const auto& [name, value] : dict.items)
    if (name.String() != nullptr && *name.String() == key) return &value;
  return nullptr;
}

std::vector<Value> Elements(const Value& value, Budget* budget) {
  std::vector<Value> out;
  if (const auto* list = value.AsList()) {
    budget->Step(static_cast<int64_t>(list->items.size()));
    return list->items;
  }
  if (const auto* dict = value.AsDict()) {
    budget->Step(static_cast<int64_t>(dict->items.size()));
    for (const auto& [key, unused] : dict->items) out.push_back(key);
  } else if (const auto* text = value.String()) {
    budget->Step(static_cast<int64_t>(text->size()));
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

int64_t Length(const Value& value, Budget* budget) {
  if (const auto* list = value.AsList()) return static_cast<int64_t>(list->items.size());
  if (const auto* dict = value.AsDict()) return static_cast<int64_t>(dict->items.size());
  if (const auto* text = value.String()) {
    budget->Bytes(text->size() / 4);
    return CountCodepoints(*text);
  }
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

namespace {
void AppendRepr(const Value& value, std::string* out, Budget* budget) {
  budget->Step();
  const size_t before = out->size();
  if (value.IsUndefined()) {
    *out += "Undefined";
  } else if (value.IsNone()) {
    *out += "None";
  } else if (const auto* flag = value.As<bool>()) {
    *out += *flag ? "True" : "False";
  } else if (const auto* integer = value.As<int64_t>()) {
    *out += std::to_string(*integer);
  } else if (const auto* number = value.As<double>()) {
    *out += FloatRepr(*number);
  } else if (const auto* text = value.String()) {
    budget->Bytes(2 * text->size());
    *out += StringRepr(*text);
  } else if (const auto* list = value.AsList()) {
    *out += list->tuple ? '(' : '[';
    for (size_t i = 0; i < list->items.size(); ++i) {
      if (i > 0) *out += ", ";
      AppendRepr(list->items[i], out, budget);
    }
    *out += list->tuple ? (list->items.size() == 1 ? ",)" : ")") : "]";
    return;
  } else if (const auto* dict = value.AsDict()) {
    *out += '{';
    for (size_t i = 0; i < dict->items.size(); ++i) {
      if (i > 0) *out += ", ";
      AppendRepr(dict->items[i].first, out, budget);
      *out += ": ";
      AppendRepr(dict->items[i].second, out, budget);
    }
    *out += '}';
    return;
  } else {
    Fail(TypeName(value) + " cannot be printed");
  }
  budget->Bytes(out->size() - before + 2);
}
}  // namespace

std::string Str(const Value& value, Budget* budget) {
  if (const auto* text = value.String()) {
    budget->Bytes(text->size());
    return *text;
  }
  return value.IsUndefined() ? "" : Repr(value, budget);
}

std::string Repr(const Value& value, Budget* budget) {
  std::string out;
  AppendRepr(value, &out, budget);
  return out;
}

std::string Shown(const Value& value) {
  constexpr size_t kMaxShown = 200;
  std::string out;
  bool cut = false;
  if (const auto* text = value.String()) {
    cut = text->size() > kMaxShown;
    out = text->substr(0, kMaxShown);
  } else if (!value.IsUndefined()) {
    Budget budget({kMaxShown, 4 * kMaxShown});
    try {
      AppendRepr(value, &out, &budget);
    } catch (const TemplateError& error) {
      if (!error.limit) throw;
      cut = true;
    }
  }
  return cut ? ReplaceInvalidUtf8(out) + "..." : out;
}

}  // namespace tern::text::jinja
