// See jinja_parser.h. Filters, tests and functions that the interpreter does not have are refused
// here, before any message is there.
#include <algorithm>

#include "base/error.h"
#include "text/jinja_builtins.h"
#include "text/jinja_parser.h"

namespace tern::text::jinja {
namespace {

constexpr int kMaxDepth = 100;      // Of brackets and blocks: the parser recurses
constexpr int kMaxTreeDepth = 200;  // Of an expression: the interpreter recurses

}  // namespace

ExpressionParser::Nested::Nested(ExpressionParser* parser) : parser_(parser) {
  if (parser->depth_ >= kMaxDepth)
    FailAt(parser->Now().at, StrCat("nested deeper than ", kMaxDepth, " levels"));
  ++parser->depth_;
}

const Token& ExpressionParser::Take() {
  const Token& token = tokens_[next_];
  if (token.type != TokenType::kEnd) ++next_;
  return token;
}
bool ExpressionParser::IsOperator(std::string_view text) const {
  return Now().type == TokenType::kOperator && Now().text == text;
}
bool ExpressionParser::IsName(std::string_view text) const {
  return Now().type == TokenType::kName && Now().text == text;
}
bool ExpressionParser::SkipOperator(std::string_view text) {
  if (!IsOperator(text)) return false;
  Take();
  return true;
}
bool ExpressionParser::SkipName(std::string_view text) {
  if (!IsName(text)) return false;
  Take();
  return true;
}

std::string ExpressionParser::Shown(const Token& token) {
  switch (token.type) {
    case TokenType::kBlockEnd:
      return "the end of the tag";
    case TokenType::kPrintEnd:
      return "'}}'";
    case TokenType::kEnd:
      return "the end of the template";
    case TokenType::kText:
      return "text";
    case TokenType::kBlockBegin:
      return "'{%'";
    case TokenType::kPrintBegin:
      return "'{{'";
    default:
      return "'" + token.text + "'";
  }
}

void ExpressionParser::WantOperator(std::string_view text) {
  if (!SkipOperator(text)) FailAt(Now().at, StrCat("want '", text, "', found ", Shown(Now())));
}
void ExpressionParser::WantName(std::string_view text) {
  if (!SkipName(text)) FailAt(Now().at, StrCat("want '", text, "', found ", Shown(Now())));
}
std::string ExpressionParser::Name() {
  if (Now().type != TokenType::kName) FailAt(Now().at, StrCat("want a name, found ", Shown(Now())));
  return Take().text;
}

ExprPtr ExpressionParser::Make(ExprKind kind, Position at, ExprPtr a, ExprPtr b) {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->at = at;
  if (a) expr->args.push_back(std::move(a));
  if (b) expr->args.push_back(std::move(b));
  return Sealed(std::move(expr));
}

ExprPtr ExpressionParser::Sealed(ExprPtr expr) {
  int deepest = 0;
  for (const ExprPtr& arg : expr->args)
    if (arg) deepest = std::max(deepest, arg->depth);
  for (const auto& [name, arg] : expr->keywords) deepest = std::max(deepest, arg->depth);
  expr->depth = deepest + 1;
  if (expr->depth > kMaxTreeDepth)
    FailAt(expr->at, StrCat("an expression of more than ", kMaxTreeDepth, " levels"));
  return expr;
}

// Expressions, from the loosest binding to the tightest.

bool ExpressionParser::AtTupleEnd() const {
  return Now().type == TokenType::kBlockEnd || Now().type == TokenType::kPrintEnd ||
         IsOperator(")") || IsName("if") || IsOperator("=");
}
ExprPtr ExpressionParser::TupleOrExpression(bool conditional) {
  const Position at = Now().at;
  ExprPtr first = conditional ? Expression() : Or();
  if (!IsOperator(",")) return first;
  ExprPtr tuple = Make(ExprKind::kTuple, at, std::move(first));
  while (SkipOperator(",")) {
    if (AtTupleEnd()) break;
    tuple->args.push_back(conditional ? Expression() : Or());
  }
  return tuple;
}

ExprPtr ExpressionParser::Expression() {
  const Nested nested(this);
  ExprPtr expr = Or();
  while (IsName("if")) {
    const Position at = Take().at;
    ExprPtr choice = Make(ExprKind::kConditional, at, Or(), std::move(expr));
    choice->args.push_back(SkipName("else") ? Expression() : nullptr);
    expr = Sealed(std::move(choice));
  }
  return Sealed(std::move(expr));
}

ExprPtr ExpressionParser::Or() {
  ExprPtr left = And();
  while (IsName("or")) {
    const Position at = Take().at;
    left = Sealed(Make(ExprKind::kOr, at, std::move(left), And()));
  }
  return left;
}
ExprPtr ExpressionParser::And() {
  ExprPtr left = Not();
  while (IsName("and")) {
    const Position at = Take().at;
    left = Sealed(Make(ExprKind::kAnd, at, std::move(left), Not()));
  }
  return left;
}
ExprPtr ExpressionParser::Not() {
  if (!IsName("not")) return Compare();
  const Nested nested(this);
  const Position at = Take().at;
  return Make(ExprKind::kNot, at, Not());
}

ExprPtr ExpressionParser::Compare() {
  ExprPtr left = Sum();
  ExprPtr compare;
  while (true) {
    std::string op;
    static constexpr std::string_view kOps[] = {"==", "!=", "<", "<=", ">", ">="};
    if (Now().type == TokenType::kOperator &&
        std::find(std::begin(kOps), std::end(kOps), Now().text) != std::end(kOps)) {
      op = Now().text;
    } else if (IsName("in")) {
      op = "in";
    } else if (IsName("not") && Next().type == TokenType::kName && Next().text == "in") {
      Take();
      op = "not in";
    } else {
      return compare ? std::move(compare) : std::move(left);
    }
    const Position at = Take().at;
    if (!compare) compare = Make(ExprKind::kCompare, at, std::move(left));
    compare->names.push_back(op);
    compare->args.push_back(Sum());
  }
}

ExprPtr ExpressionParser::Binary(ExprPtr (ExpressionParser::*next)(),
                                 std::initializer_list<std::string_view> ops) {
  ExprPtr left = (this->*next)();
  while (Now().type == TokenType::kOperator &&
         std::find(ops.begin(), ops.end(), Now().text) != ops.end()) {
    const Token& token = Take();
    left = Sealed(Make(ExprKind::kBinary, token.at, std::move(left), (this->*next)()));
    left->name = token.text;
  }
  return left;
}
ExprPtr ExpressionParser::Sum() { return Binary(&ExpressionParser::Concat, {"+", "-"}); }
ExprPtr ExpressionParser::Concat() { return Binary(&ExpressionParser::Product, {"~"}); }
ExprPtr ExpressionParser::Product() {
  return Binary(&ExpressionParser::Power, {"*", "/", "//", "%"});
}
ExprPtr ExpressionParser::Power() { return Binary(&ExpressionParser::UnaryAndFilters, {"**"}); }

ExprPtr ExpressionParser::UnaryAndFilters() { return Filters(Unary()); }
ExprPtr ExpressionParser::Unary() {
  const Nested nested(this);
  if (IsOperator("-")) {
    const Position at = Take().at;
    return Make(ExprKind::kNegate, at, Unary());
  }
  if (SkipOperator("+")) return Unary();
  return Postfix(Sealed(Primary()));
}

ExprPtr ExpressionParser::Primary() {
  const Token& token = Take();
  switch (token.type) {
    case TokenType::kName:
      return NameOrConstant(token);
    case TokenType::kString: {
      ExprPtr expr = Make(ExprKind::kConstant, token.at);
      std::string text = token.text;
      while (Now().type == TokenType::kString) text += Take().text;
      expr->value = MakeString(std::move(text));
      return expr;
    }
    case TokenType::kInteger:
    case TokenType::kFloat: {
      ExprPtr expr = Make(ExprKind::kConstant, token.at);
      expr->value =
          token.type == TokenType::kInteger ? MakeInt(token.integer) : Value{token.number};
      return expr;
    }
    case TokenType::kOperator:
      if (token.text == "(") return Parenthesis(token.at);
      if (token.text == "[") return ListDisplay(token.at);
      if (token.text == "{") return DictDisplay(token.at);
      [[fallthrough]];
    default:
      FailAt(token.at, StrCat("want an expression, found ", Shown(token)));
  }
}

ExprPtr ExpressionParser::NameOrConstant(const Token& token) {
  ExprPtr expr = Make(ExprKind::kConstant, token.at);
  const std::string& name = token.text;
  if (name == "true" || name == "True") {
    expr->value = MakeBool(true);
  } else if (name == "false" || name == "False") {
    expr->value = MakeBool(false);
  } else if (name == "none" || name == "None") {
    expr->value = MakeNone();
  } else {
    for (const std::string_view word : {"if", "else", "elif", "for", "in", "is", "and", "or"})
      if (name == word) FailAt(token.at, StrCat("want an expression, found '", name, "'"));
    expr->kind = ExprKind::kName;
    expr->name = name;
  }
  return expr;
}

ExprPtr ExpressionParser::Parenthesis(Position at) {
  if (SkipOperator(")")) return Make(ExprKind::kTuple, at);
  ExprPtr inner = TupleOrExpression();
  WantOperator(")");
  return inner;
}
ExprPtr ExpressionParser::ListDisplay(Position at) {
  ExprPtr list = Make(ExprKind::kList, at);
  while (!IsOperator("]")) {
    list->args.push_back(Expression());
    if (!SkipOperator(",")) break;
  }
  WantOperator("]");
  return list;
}
ExprPtr ExpressionParser::DictDisplay(Position at) {
  ExprPtr dict = Make(ExprKind::kDict, at);
  while (!IsOperator("}")) {
    dict->args.push_back(Expression());
    WantOperator(":");
    dict->args.push_back(Expression());
    if (!SkipOperator(",")) break;
  }
  WantOperator("}");
  return dict;
}

ExprPtr ExpressionParser::Postfix(ExprPtr expr) {
  while (true) {
    const Position at = Now().at;
    if (SkipOperator(".")) {
      if (Now().type == TokenType::kInteger) {
        ExprPtr index = Make(ExprKind::kConstant, at);
        index->value = MakeInt(Take().integer);
        expr = Sealed(Make(ExprKind::kSubscript, at, std::move(expr), std::move(index)));
        continue;
      }
      expr = Sealed(Make(ExprKind::kAttribute, at, std::move(expr)));
      expr->name = Name();
    } else if (SkipOperator("[")) {
      expr = Sealed(Subscript(at, std::move(expr)));
    } else if (IsOperator("(")) {
      if (expr->kind == ExprKind::kName) CheckFunction(*expr);
      expr = Sealed(Make(ExprKind::kCall, at, std::move(expr)));
      Arguments(expr.get());
    } else {
      return expr;
    }
  }
}
void ExpressionParser::CheckFunction(const Expr& name) {
  for (const std::string_view word : {"lipsum", "cycler", "joiner", "caller", "super", "self"})
    if (name.name == word)
      FailAt(name.at, StrCat("the function '", word, "' is not in the subset"));
}

ExprPtr ExpressionParser::Subscript(Position at, ExprPtr object) {
  ExprPtr parts[3];
  int colons = 0;
  while (!IsOperator("]")) {
    if (SkipOperator(":")) {
      if (++colons > 2) FailAt(at, "a slice of more than three parts");
      continue;
    }
    if (parts[colons]) FailAt(Now().at, StrCat("want ']', found ", Shown(Now())));
    parts[colons] = Expression();
  }
  WantOperator("]");
  if (colons == 0) {
    if (!parts[0]) FailAt(at, "a subscript without an index");
    return Make(ExprKind::kSubscript, at, std::move(object), std::move(parts[0]));
  }
  ExprPtr slice = Make(ExprKind::kSlice, at, std::move(object));
  for (ExprPtr& part : parts) slice->args.push_back(std::move(part));
  return slice;
}

void ExpressionParser::Arguments(Expr* call) {
  WantOperator("(");
  while (!IsOperator(")")) {
    if (IsOperator("*") || IsOperator("**"))
      FailAt(Now().at, "arguments with * are not in the subset");
    const Token& next = Next();
    if (Now().type == TokenType::kName && next.type == TokenType::kOperator && next.text == "=") {
      std::string name = Name();
      Take();
      call->keywords.emplace_back(std::move(name), Expression());
    } else {
      if (!call->keywords.empty()) FailAt(Now().at, "an argument behind those with a name");
      call->args.push_back(Expression());
    }
    if (!SkipOperator(",")) break;
  }
  WantOperator(")");
}

// Filters, tests and calls behind a value (null: the text of a set block).
ExprPtr ExpressionParser::Filters(ExprPtr expr) {
  while (true) {
    if (SkipOperator("|")) {
      auto filter = std::make_unique<Expr>();
      filter->kind = ExprKind::kFilter;
      filter->at = Now().at;
      filter->name = Name();
      if (!HasFilter(filter->name))
        FailAt(filter->at, StrCat("the filter '", filter->name, "' is not in the subset"));
      filter->args.push_back(std::move(expr));
      if (IsOperator("(")) Arguments(filter.get());
      expr = Sealed(std::move(filter));
    } else if (IsName("is")) {
      expr = Sealed(Test(std::move(expr)));
    } else if (expr && IsOperator("(")) {
      const Position at = Now().at;
      expr = Sealed(Make(ExprKind::kCall, at, std::move(expr)));
      Arguments(expr.get());
    } else {
      return expr;
    }
  }
}

ExprPtr ExpressionParser::Test(ExprPtr value) {
  Take();
  const bool negated = SkipName("not");
  ExprPtr test = Make(ExprKind::kTest, Now().at, std::move(value));
  test->name = Name();
  if (!HasTest(test->name))
    FailAt(test->at, StrCat("the test '", test->name, "' is not in the subset"));
  const bool argument =
      Now().type == TokenType::kString || Now().type == TokenType::kInteger ||
      Now().type == TokenType::kFloat || IsOperator("[") || IsOperator("{") ||
      (Now().type == TokenType::kName && !IsName("else") && !IsName("or") && !IsName("and") &&
       !IsName("if") && !IsName("is") && !IsName("in") && !IsName("not"));
  if (IsOperator("(")) {
    Arguments(test.get());
  } else if (argument) {
    test->args.push_back(Postfix(Primary()));
  }
  if (!negated) return test;
  const Position at = test->at;
  return Make(ExprKind::kNot, at, std::move(test));
}

}  // namespace tern::text::jinja
