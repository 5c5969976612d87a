// Tests: what stands behind `is` (jinja2/tests.py says what each does).
#include <algorithm>
#include <map>

#include "base/error.h"
#include "text/jinja_builtins.h"
#include "text/unicode.h"

namespace tern::text::jinja {
namespace {

using TestFunction = bool (*)(const Value&, const Args&, Budget*);

const Value& Operand(const Args& args) {
  args.Want("a test", 1, 1);
  return args.positional[0];
}

bool InTest(const Value& value, const Args& args, Budget* budget) {
  const Value& where = Operand(args);
  if (where.String() != nullptr && value.String() == nullptr) return false;
  return Contains(where, value, budget);
}

bool Parity(const Value& value, bool odd) {
  int64_t integer = 0;
  if (!IntOf(value, &integer)) Fail("odd and even want an int, not " + TypeName(value));
  return (integer % 2 != 0) == odd;
}

bool DivisibleBy(const Value& value, const Args& args, Budget*) {
  int64_t a = 0, b = 0;
  if (!IntOf(value, &a) || !IntOf(Operand(args), &b) || b == 0)
    Fail("divisibleby wants ints, and not 0");
  return b == -1 || a % b == 0;
}

// Python's `is`, as far as templates can see it.
bool Same(const Value& value, const Args& args, Budget* budget) {
  const Value& other = Operand(args);
  if (value.data.index() != other.data.index()) return false;
  if (value.AsList() != nullptr || value.AsDict() != nullptr)
    return value.AsList() == other.AsList() && value.AsDict() == other.AsDict();
  return Equal(value, other, budget);
}

bool AllCased(const Value& value, Budget* budget, bool upper) {
  const std::string text = Str(value, budget);
  budget->Bytes(8 * text.size());  // Two mappings
  const std::string low = ToLower(text), high = ToUpper(text);
  return text == (upper ? high : low) && high != low;
}

const std::map<std::string_view, TestFunction>& Tests() {
  using V = const Value&;
  using A = const Args&;
  using B = Budget*;
  static constexpr TestFunction kEqual = [](V v, A a, B b) { return Equal(v, Operand(a), b); };
  static constexpr TestFunction kNotEqual = [](V v, A a, B b) { return !Equal(v, Operand(a), b); };
  static constexpr TestFunction kLess = [](V v, A a, B b) { return Less(v, Operand(a), b); };
  static constexpr TestFunction kGreater = [](V v, A a, B b) { return Less(Operand(a), v, b); };
  static constexpr TestFunction kAtMost = [](V v, A a, B b) { return !Less(Operand(a), v, b); };
  static constexpr TestFunction kAtLeast = [](V v, A a, B b) { return !Less(v, Operand(a), b); };
  static const std::map<std::string_view, TestFunction> tests = {
      {"!=", kNotEqual},
      {"<", kLess},
      {"<=", kAtMost},
      {"==", kEqual},
      {">", kGreater},
      {">=", kAtLeast},
      {"boolean", [](V v, A, B) { return v.Is<bool>(); }},
      {"callable", [](V v, A, B) { return v.Is<Value::CallablePtr>(); }},
      {"defined", [](V v, A, B) { return !v.IsUndefined(); }},
      {"divisibleby", DivisibleBy},
      {"eq", kEqual},
      {"equalto", kEqual},
      {"even", [](V v, A, B) { return Parity(v, false); }},
      {"false", [](V v, A, B) { return v.Is<bool>() && !Truthy(v); }},
      {"float", [](V v, A, B) { return v.Is<double>(); }},
      {"ge", kAtLeast},
      {"greaterthan", kGreater},
      {"gt", kGreater},
      {"in", InTest},
      {"integer", [](V v, A, B) { return v.Is<int64_t>(); }},
      {"iterable",
       [](V v, A, B) { return v.String() || v.AsList() || v.AsDict() || v.IsUndefined(); }},
      {"le", kAtMost},
      {"lessthan", kLess},
      {"lower", [](V v, A, B b) { return AllCased(v, b, false); }},
      {"lt", kLess},
      {"mapping", [](V v, A, B) { return v.AsDict() != nullptr; }},
      {"ne", kNotEqual},
      {"none", [](V v, A, B) { return v.IsNone(); }},
      {"number",
       [](V v, A, B) {
         double unused = 0;
         return NumberOf(v, &unused);
       }},
      {"odd", [](V v, A, B) { return Parity(v, true); }},
      {"sameas", Same},
      {"sequence",
       [](V v, A, B) { return v.String() || v.AsList() || v.AsDict() || v.IsUndefined(); }},
      {"string", [](V v, A, B) { return v.String() != nullptr; }},
      {"true", [](V v, A, B) { return v.Is<bool>() && Truthy(v); }},
      {"undefined", [](V v, A, B) { return v.IsUndefined(); }},
      {"upper", [](V v, A, B b) { return AllCased(v, b, true); }},
  };
  return tests;
}

}  // namespace

bool HasTest(std::string_view name) { return Tests().contains(name); }

bool CallTest(std::string_view name, const Value& value, const Args& args, Budget* budget) {
  budget->Step();
  return Tests().at(name)(value, args, budget);
}

}  // namespace tern::text::jinja
