// Runs a parsed template. Steps, bytes and depth are limited (jinja_budget.h; 400
// levels of statements, expressions and macros together).
#pragma once

#include <string>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_budget.h"

namespace tern::text::jinja {

// `globals`: a dictionary, the names that the template finds. Throws InputError with the line for
// what the messages do (raise_exception, an undefined member), FormatError for a limit.
std::string Render(const std::vector<Stmt>& body, const Value& globals, const Limits& limits = {});

}  // namespace tern::text::jinja
