// The syntax tree of a template: one struct for expressions and one for statements, whose `kind`
// says which members mean something.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_lexer.h"
#include "text/jinja_value.h"

namespace tern::text::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class ExprKind {
  kConstant,     // value
  kName,         // name
  kList,         // args
  kTuple,        // args
  kDict,         // args: key, value, key, value, ...
  kAttribute,    // args[0].name
  kSubscript,    // args[0][args[1]]
  kSlice,        // args[0][args[1] : args[2] : args[3]], null: left out
  kCall,         // args[0](args[1]..., keywords)
  kFilter,       // args[0] | name(args[1]..., keywords); args[0] null: the text of a set block
  kTest,         // args[0] is name(args[1]...)
  kNot,          // args[0]
  kNegate,       // args[0]
  kAnd,          // args[0], args[1]
  kOr,           // args[0], args[1]
  kBinary,       // args[0] name args[1], name: + - * / // % ** ~
  kCompare,      // args[0] names[0] args[1] names[1] args[2] ...
  kConditional,  // args[1] if args[0] else args[2] (null: undefined)
};

struct Expr {
  ExprKind kind = ExprKind::kConstant;
  Position at;
  Value value;
  std::string name;
  std::vector<std::string> names;
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> keywords;
  int depth = 1;  // 1 + the deepest of args and keywords
};

enum class StmtKind {
  kText,      // text
  kPrint,     // value
  kIf,        // conditions[i]: bodies[i]; one more body: else
  kFor,       // targets in value, conditions[0] (or none): bodies[0]; bodies[1]: else
  kSet,       // targets = value
  kSetBlock,  // targets = bodies[0], through the filters in value when there are any
  kMacro,     // text(targets, with defaults in conditions at their end): bodies[0]
  kBreak,
  kContinue,
};

struct Stmt {
  StmtKind kind = StmtKind::kText;
  Position at;
  std::string text;
  ExprPtr value;
  std::vector<std::string> targets;  // Names; "ns.name" is an attribute of a namespace
  std::vector<ExprPtr> conditions;
  std::vector<std::vector<Stmt>> bodies;
};

// Throws FormatError with line and column for what is no Jinja, outside of the subset, or nested
// deeper than 100 levels (an expression: 200).
std::vector<Stmt> Parse(std::string_view source);

}  // namespace tern::text::jinja
