// What a template can call: filters, tests, operators and the methods of strings, dictionaries and
// lists. All work on values and know nothing of templates. Errors are TemplateError.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_budget.h"
#include "text/jinja_value.h"

namespace tern::text::jinja {

struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // Parameter `index`, or the one called `name`; null: not given.
  const Value* Get(size_t index, std::string_view name) const;
  // The same with checks of the type.
  int64_t Int(size_t index, std::string_view name, int64_t fallback) const;
  std::string Text(size_t index, std::string_view name, std::string_view fallback) const;
  // Throws TemplateError when there are more, fewer, or ones with another name.
  void Want(std::string_view callee, size_t least, size_t most,
            std::initializer_list<std::string_view> names = {}) const;
};

bool HasFilter(std::string_view name);
Value CallFilter(std::string_view name, const Value& value, const Args& args, Budget* budget);

bool HasTest(std::string_view name);
bool CallTest(std::string_view name, const Value& value, const Args& args, Budget* budget);

// Methods of Python's str, dict and list that change nothing.
bool HasMethod(const Value& value, std::string_view name);
Value CallMethod(const Value& value, std::string_view name, const Args& args, Budget* budget);

// value.name or value["name"] of dictionaries, value[index] of lists and strings; undefined when
// it is not there. Throws TemplateError for undefined values.
Value Member(const Value& value, const Value& key, Budget* budget);
// Python's value[begin:end:step]; none: left out.
Value Slice(const Value& value, const Value& begin, const Value& end, const Value& step,
            Budget* budget);

// Where `what` stands in `text` at or behind `from` (the last place: at all), or npos. Linear in
// both lengths, which std::string::find is not.
size_t FindText(std::string_view text, std::string_view what, size_t from);
size_t FindLastText(std::string_view text, std::string_view what);

// + - * / // % ** and ~ of jinja_operators.cc. Throw TemplateError for operands that do not fit,
// division by 0, and integers beyond 64 bits.
Value Binary(const std::string& op, const Value& left, const Value& right, Budget* budget);
Value Negate(const Value& value);
// `what in where`: a part of a text, a key, an element.
bool Contains(const Value& where, const Value& what, Budget* budget);

}  // namespace tern::text::jinja
