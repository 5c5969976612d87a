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
  if (const std::string* text = where.String())
    return value.String() != nullptr && text->find(*value.String()) != std::string::npos;
  const std::vector<Value> items = budget->Items(where);
  return std::any_of(items.begin(), items.end(), [&](const Value& v) { return Equal(v, value); });
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
bool Same(const Value& value, const Args& args, Budget*) {
  const Value& other = Operand(args);
  if (value.data.index() != other.data.index()) return false;
  if (value.AsList() != nullptr || value.AsDict() != nullptr)
    return value.AsList() == other.AsList() && value.AsDict() == other.AsDict();
  return Equal(value, other);
}

bool AllCased(const Value& value, bool upper) {
  const std::string text = Str(value);
  return text == (upper ? ToUpper(text) : ToLower(text)) && ToUpper(text) != ToLower(text);
}

const std::map<std::string_view, TestFunction>& Tests() {
  using V = const Value&;
  using A = const Args&;
  static constexpr TestFunction kEqual = [](V v, A a, Budget*) { return Equal(v, Operand(a)); };
  static constexpr TestFunction kNotEqual = [](V v, A a, Budget*) { return !Equal(v, Operand(a)); };
  static constexpr TestFunction kLess = [](V v, A a, Budget*) { return Less(v, Operand(a)); };
  static constexpr TestFunction kGreater = [](V v, A a, Budget*) { return Less(Operand(a), v); };
  static constexpr TestFunction kAtMost = [](V v, A a, Budget*) { return !Less(Operand(a), v); };
  static constexpr TestFunction kAtLeast = [](V v, A a, Budget*) { return !Less(v, Operand(a)); };
  static const std::map<std::string_view, TestFunction> tests = {
      {"!=", kNotEqual},
      {"<", kLess},
      {"<=", kAtMost},
      {"==", kEqual},
      {">", kGreater},
      {">=", kAtLeast},
      {"boolean", [](V v, A, Budget*) { return v.Is<bool>(); }},
      {"callable", [](V v, A, Budget*) { return v.Is<Value::CallablePtr>(); }},
      {"defined", [](V v, A, Budget*) { return !v.IsUndefined(); }},
      {"divisibleby", DivisibleBy},
      {"eq", kEqual},
      {"equalto", kEqual},
      {"even", [](V v, A, Budget*) { return Parity(v, false); }},
      {"false", [](V v, A, Budget*) { return v.Is<bool>() && !Truthy(v); }},
      {"float", [](V v, A, Budget*) { return v.Is<double>(); }},
      {"ge", kAtLeast},
      {"greaterthan", kGreater},
      {"gt", kGreater},
      {"in", InTest},
      {"integer", [](V v, A, Budget*) { return v.Is<int64_t>(); }},
      {"iterable",
       [](V v, A, Budget*) { return v.String() || v.AsList() || v.AsDict() || v.IsUndefined(); }},
      {"le", kAtMost},
      {"lessthan", kLess},
      {"lower", [](V v, A, Budget*) { return AllCased(v, false); }},
      {"lt", kLess},
      {"mapping", [](V v, A, Budget*) { return v.AsDict() != nullptr; }},
      {"ne", kNotEqual},
      {"none", [](V v, A, Budget*) { return v.IsNone(); }},
      {"number",
       [](V v, A, Budget*) {
         double unused = 0;
         return NumberOf(v, &unused);
       }},
      {"odd", [](V v, A, Budget*) { return Parity(v, true); }},
      {"sameas", Same},
      {"sequence",
       [](V v, A, Budget*) { return v.String() || v.AsList() || v.AsDict() || v.IsUndefined(); }},
      {"string", [](V v, A, Budget*) { return v.String() != nullptr; }},
      {"true", [](V v, A, Budget*) { return v.Is<bool>() && Truthy(v); }},
      {"undefined", [](V v, A, Budget*) { return v.IsUndefined(); }},
      {"upper", [](V v, A, Budget*) { return AllCased(v, true); }},
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
