// See jinja_budget.h.
#include "text/jinja_budget.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace tern::text::jinja {
namespace {
constexpr int kMaxNested = 50;
}

void Budget::Step(int64_t count) {
  steps_ += std::clamp<int64_t>(count, 0, limits_.steps + 1);
  if (steps_ > limits_.steps)
    throw TemplateError{StrCat("more than ", limits_.steps, " steps"), true};
}
void Budget::Bytes(size_t count) {
  bytes_ += static_cast<int64_t>(std::min(count, static_cast<size_t>(limits_.bytes) + 1));
  if (bytes_ > limits_.bytes)
    throw TemplateError{StrCat("more than ", limits_.bytes, " bytes"), true};
}
Value Budget::Text(std::string text) {
  Bytes(text.size());
  return MakeString(std::move(text));
}
Value Budget::NewList(std::vector<Value> items, bool tuple) {
  Step(static_cast<int64_t>(items.size()));
  return MakeList(std::move(items), tuple);
}

Budget::Nested::Nested(Budget* budget) : budget_(budget) {
  if (budget->nested_ >= kMaxNested)
    throw TemplateError{StrCat("filters nested deeper than ", kMaxNested, " levels"), true};
  ++budget->nested_;
}

}  // namespace tern::text::jinja
