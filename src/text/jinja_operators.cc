// Operators of expressions, as Python has them for the values of templates; integers that leave 64
// bits are an error.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "text/jinja_builtins.h"

namespace tern::text::jinja {
namespace {

Value Repeat(const std::string& text, int64_t count, Budget* budget) {
  std::string out;
  if (text.empty()) return MakeString("");
  budget->Step(std::max<int64_t>(0, count));
  for (int64_t i = 0; i < count; ++i) {
    budget->Bytes(text.size());
    out += text;
  }
  return MakeString(std::move(out));
}

Value Integers(const std::string& op, int64_t a, int64_t b) {
  int64_t out = 0;
  bool beyond = false;
  if (op == "+") beyond = __builtin_add_overflow(a, b, &out);
  if (op == "-") beyond = __builtin_sub_overflow(a, b, &out);
  if (op == "*") beyond = __builtin_mul_overflow(a, b, &out);
  if (op == "//" || op == "%") {
    if (b == 0) Fail("division by 0");
    if (b == -1) return op == "%" ? MakeInt(0) : Negate(MakeInt(a));
    const int64_t remainder = a % b, shift = remainder != 0 && (remainder < 0) != (b < 0) ? 1 : 0;
    out = op == "%" ? remainder + shift * b : a / b - shift;
  }
  if (op == "**") {
    if (b < 0) return {std::pow(static_cast<double>(a), static_cast<double>(b))};
    out = 1;
    for (int64_t i = 0; i < b && !beyond; ++i) {
      beyond = __builtin_mul_overflow(out, a, &out);
      if (out == 0 || (a == 1) || (a == -1 && i >= 63)) break;
    }
    if (a == -1) out = b % 2 == 0 ? 1 : -1;
  }
  if (beyond) Fail(StrCat(a, " ", op, " ", b, " is beyond 64 bits"));
  return MakeInt(out);
}
}  // namespace

Value Negate(const Value& value) {
  int64_t integer = 0;
  if (IntOf(value, &integer) && integer != INT64_MIN) return MakeInt(-integer);
  if (const double* real = value.As<double>()) return {-*real};
  Fail("- wants a number, not " + TypeName(value));
}

bool Contains(const Value& where, const Value& what, Budget* budget) {
  if (const std::string* text = where.String()) {
    if (what.String() == nullptr) Fail("'in' a text wants a text, not " + TypeName(what));
    budget->Bytes((text->size() + what.String()->size()) / 2);
    return FindText(*text, *what.String(), 0) != std::string::npos;
  }
  if (const Dict* dict = where.AsDict()) return Find(*dict, what, budget) != nullptr;
  const std::vector<Value> items = Elements(where, budget);
  return std::any_of(items.begin(), items.end(),
                     [&](const Value& v) { return Equal(v, what, budget); });
}

Value Binary(const std::string& op, const Value& left, const Value& right, Budget* budget) {
  if (op == "~") return MakeString(Str(left, budget) + Str(right, budget));
  if (op == "+" && left.String() != nullptr && right.String() != nullptr)
    return budget->Text(*left.String() + *right.String());
  if (op == "+" && left.AsList() != nullptr && right.AsList() != nullptr) {
    if (left.AsList()->tuple != right.AsList()->tuple) Fail("a list + a tuple is not possible");
    std::vector<Value> items = Elements(left, budget);
    for (Value& item : Elements(right, budget)) items.push_back(std::move(item));
    return MakeList(std::move(items), left.AsList()->tuple);
  }
  if (op == "*") {
    int64_t count = 0;
    if (left.String() != nullptr && IntOf(right, &count))
      return Repeat(*left.String(), count, budget);
    if (right.String() != nullptr && IntOf(left, &count))
      return Repeat(*right.String(), count, budget);
  }
  int64_t a = 0, b = 0;
  if (op != "/" && IntOf(left, &a) && IntOf(right, &b)) return Integers(op, a, b);
  double x = 0, y = 0;
  if (!NumberOf(left, &x) || !NumberOf(right, &y))
    Fail(StrCat(TypeName(left), " ", op, " ", TypeName(right), " is not possible"));
  if (y == 0 && (op == "/" || op == "//" || op == "%")) Fail("division by 0");
  if (op == "+") return {x + y};
  if (op == "-") return {x - y};
  if (op == "*") return {x * y};
  if (op == "/") return {x / y};
  if (op == "//") return {std::floor(x / y)};
  if (op == "%") return {x - y * std::floor(x / y)};
  return {std::pow(x, y)};
}
}  // namespace tern::text::jinja
