// The half of the template parser that reads expressions; statements are in jinja_parser.cc.
// Recursive descent over Jinja's grammar: one function for each level of precedence.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_ast.h"

namespace tern::text::jinja {

class ExpressionParser {
 protected:
  explicit ExpressionParser(std::string_view source) : tokens_(Tokenize(source)) {}

  // Counts levels of nesting as long as it lives.
  class Nested {
   public:
    explicit Nested(ExpressionParser* parser);
    ~Nested() { --parser_->depth_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;

   private:
    ExpressionParser* parser_;
  };

  const Token& Now() const { return tokens_[next_]; }
  const Token& Next() const { return tokens_[next_ + 1 < tokens_.size() ? next_ + 1 : next_]; }
  const Token& Take();
  bool IsOperator(std::string_view text) const;
  bool IsName(std::string_view text) const;
  bool SkipOperator(std::string_view text);
  bool SkipName(std::string_view text);
  // Throw FormatError when something else is there.
  void WantOperator(std::string_view text);
  void WantName(std::string_view text);
  std::string Name();
  static std::string Shown(const Token& token);

  ExprPtr Expression();
  ExprPtr TupleOrExpression(bool conditional = true);
  // Filters, tests and calls behind a value (null: the text of a set block).
  ExprPtr Filters(ExprPtr expr);

 private:
  bool AtTupleEnd() const;
  ExprPtr Or();
  ExprPtr And();
  ExprPtr Not();
  ExprPtr Compare();
  ExprPtr Binary(ExprPtr (ExpressionParser::*next)(), std::initializer_list<std::string_view> ops);
  ExprPtr Sum();
  ExprPtr Concat();
  ExprPtr Product();
  ExprPtr Power();
  ExprPtr UnaryAndFilters();
  ExprPtr Unary();
  ExprPtr Primary();
  ExprPtr NameOrConstant(const Token& token);
  ExprPtr Parenthesis(Position at);
  ExprPtr ListDisplay(Position at);
  ExprPtr DictDisplay(Position at);
  ExprPtr Postfix(ExprPtr expr);
  static void CheckFunction(const Expr& name);
  ExprPtr Subscript(Position at, ExprPtr object);
  void Arguments(Expr* call);
  ExprPtr Test(ExprPtr value);
  static ExprPtr Make(ExprKind kind, Position at, ExprPtr a = nullptr, ExprPtr b = nullptr);
  // Counts the depth of the tree, which is deep also where chains like a + b + c are long.
  static ExprPtr Sealed(ExprPtr expr);

  std::vector<Token> tokens_;
  size_t next_ = 0;
  int depth_ = 0;
};

}  // namespace tern::text::jinja
