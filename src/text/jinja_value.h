// Values of a chat template and what Python does with them: truth, equality, order, str(), repr()
// and json.dumps(). Strings are UTF-8 and count in code points; integers have 64 bits (going beyond
// is an error, where Python would go on). Lists and dictionaries never change once they are there,
// so values cannot form a ring; their nesting is limited. Namespaces are the one thing that changes
// and belong to the interpreter.
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
struct List {
  std::vector<Value> items;
  int depth = 1;  // 1 + the deepest of the items
  bool tuple = false;
};
struct Dict {
  std::vector<std::pair<Value, Value>> items;  // In order of insertion, keys differ
  int depth = 1;
};
struct Namespace;  // Of the interpreter
struct LoopState;  // Of the interpreter
// A method without its call, a function of the language, or a macro.
struct Callable;

struct Value {
  using ListPtr = std::shared_ptr<const List>;
  using DictPtr = std::shared_ptr<const Dict>;
  using CallablePtr = std::shared_ptr<const Callable>;
  using LoopPtr = std::shared_ptr<const LoopState>;
  std::variant<Undefined, None, bool, int64_t, double, std::string, ListPtr, DictPtr, CallablePtr,
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
  const std::string* String() const { return As<std::string>(); }
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

Value MakeUndefined(std::string name);
Value MakeNone();
Value MakeBool(bool value);
Value MakeInt(int64_t value);
Value MakeString(std::string text);
// Throw TemplateError when nested deeper than 64.
Value MakeList(std::vector<Value> items, bool tuple = false);
Value MakeDict(std::vector<std::pair<Value, Value>> items);
// Throws FormatError: no JSON, a key twice, nested deeper than 48 levels, more than 500,000 values.
Value ParseJson(std::string_view text);

// "string", "list", ... for messages.
std::string TypeName(const Value& value);
bool Truthy(const Value& value);
bool Equal(const Value& a, const Value& b);
// Python's <. Throws TemplateError for values that have no order.
bool Less(const Value& a, const Value& b);
// bool counts as int, as in Python. False for anything else.
bool IntOf(const Value& value, int64_t* out);
bool NumberOf(const Value& value, double* out);
// Nothing when the key is not there.
const Value* Find(const Dict& dict, const Value& key);
const Value* Find(const Dict& dict, std::string_view key);
// The elements that `for` sees: items, keys, or code points. Throws TemplateError for others;
// undefined has none.
std::vector<Value> Elements(const Value& value);
// len(); throws TemplateError for what has none.
int64_t Length(const Value& value);

// str() and repr(). Undefined is nothing.
std::string Str(const Value& value);
std::string Repr(const Value& value);
std::string FloatRepr(double value);
// json.dumps(value, ensure_ascii, indent, sort_keys) with Python's separators; indent < 0: one
// line.
std::string ToJson(const Value& value, int indent, bool ensure_ascii, bool sort_keys);

}  // namespace tern::text::jinja
