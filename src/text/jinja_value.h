// Values of a chat template and what Python does with them: truth, equality, order, str(), repr()
// and json.dumps(). Strings are UTF-8 and count in code points; integers have 64 bits (going beyond
// is an error, where Python would go on). Strings, lists and dictionaries are shared by their
// copies and never change once they are there, so values cannot form a ring; their nesting and
// their size when printed are limited. Namespaces are the one thing that changes and belong to the
// interpreter. What walks through values takes a Budget (jinja_budget.h) and charges it for each
// step.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace tern::text::jinja {

struct Value;
struct Stmt;
class Budget;

// Ends a render: InputError or FormatError are made of it where the line is known (jinja_eval.cc).
struct TemplateError {
  std::string message;
  bool limit = false;  // A limit of ours, not the messages' fault
};
[[noreturn]] void Fail(std::string message);

struct Undefined {
  std::string name;
};
struct None {};
// What a value holds, where a part that is shared counts each time it is met: [x, x] has twice the
// weight of x, and 60 such lines have more than any machine can print.
struct Size {
  int depth = 1;       // 1 + the deepest of the items
  int64_t weight = 0;  // 16 for each item, and the bytes of strings; of the nested ones, too
};
struct List {
  std::vector<Value> items;
  Size size;
  bool tuple = false;
};
struct Dict {
  std::vector<std::pair<Value, Value>> items;  // In order of insertion, keys differ
  Size size;
};
struct Namespace;  // Of the interpreter
struct LoopState;  // `loop` of a template
// A method without its call, a function of the language, or a macro.
struct Callable;

struct Value {
  using StringPtr = std::shared_ptr<const std::string>;  // Never null
  using ListPtr = std::shared_ptr<const List>;
  using DictPtr = std::shared_ptr<const Dict>;
  using CallablePtr = std::shared_ptr<const Callable>;
  using LoopPtr = std::shared_ptr<const LoopState>;
  std::variant<Undefined, None, bool, int64_t, double, StringPtr, ListPtr, DictPtr, CallablePtr,
               Namespace*, LoopPtr>
      data;

  template <class T>
  const T* As() const {
    return std::get_if<T>(&data);
  }
  template <class T>
  bool Is() const {
    return std::holds_alternative<T>(data);
  }
  bool IsUndefined() const { return Is<Undefined>(); }
  bool IsNone() const { return Is<None>(); }
  const std::string* String() const;
  const List* AsList() const;
  const Dict* AsDict() const;
};

struct Callable {
  enum class Kind { kMethod, kFunction, kMacro };
  Kind kind = Kind::kFunction;
  std::string name;
  Value self;                   // kMethod: the object
  const Stmt* macro = nullptr;  // kMacro
};

struct LoopState {
  Value::ListPtr list;
  int64_t index = 0;  // From 0
};

Value MakeUndefined(std::string name);
Value MakeNone();
Value MakeBool(bool value);
Value MakeInt(int64_t value);
Value MakeString(std::string text);
// Throw TemplateError when nested deeper than 64 levels, or of a weight above kMaxWeight.
inline constexpr int64_t kMaxWeight = int64_t{1} << 26;  // 4 million items or 64 MB of text
Value MakeList(std::vector<Value> items, bool tuple = false);
Value MakeDict(std::vector<std::pair<Value, Value>> items);
// The method of an object, as a value. Throws as MakeList does.
Value MakeMethod(std::string name, Value self);
// Throws FormatError: no JSON, a key twice, nested deeper than 48 levels, more than 500,000 values
// or kMaxWeight.
Value ParseJson(std::string_view text);

// "string", "list", ... for messages.
std::string TypeName(const Value& value);
bool Truthy(const Value& value);
bool Equal(const Value& a, const Value& b, Budget* budget);
// Python's <. Throws TemplateError for values that have no order.
bool Less(const Value& a, const Value& b, Budget* budget);
// bool counts as int, as in Python. False for anything else.
bool IntOf(const Value& value, int64_t* out);
bool NumberOf(const Value& value, double* out);
// Nothing when the key is not there.
const Value* Find(const Dict& dict, const Value& key, Budget* budget);
const Value* Find(const Dict& dict, std::string_view key);
// The elements that `for` sees: items, keys, or code points. Throws TemplateError for others;
// undefined has none.
std::vector<Value> Elements(const Value& value, Budget* budget);
// len(); throws TemplateError for what has none.
int64_t Length(const Value& value, Budget* budget);

// str() and repr(). Undefined is nothing.
std::string Str(const Value& value, Budget* budget);
std::string Repr(const Value& value, Budget* budget);
// str(), or its beginning, for messages.
std::string Shown(const Value& value);
std::string FloatRepr(double value);
// json.dumps(value, ensure_ascii, indent, sort_keys) with Python's separators; indent < 0: one
// line.
struct JsonStyle {
  int indent = -1;
  bool ensure_ascii = false, sort_keys = false;
};
std::string ToJson(const Value& value, const JsonStyle& style, Budget* budget);

}  // namespace tern::text::jinja
