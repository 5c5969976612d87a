// Statements of a template; expressions are in jinja_expressions.cc.
#include "text/jinja_parser.h"

#include <algorithm>

#include "base/error.h"

namespace tern::text::jinja {
namespace {

class Parser : ExpressionParser {
 public:
  explicit Parser(std::string_view source) : ExpressionParser(source) {}

  std::vector<Stmt> Run() {
    std::vector<Stmt> body = Body({});
    TERN_CHECK(Now().type == TokenType::kEnd, "tokens behind the template");
    return body;
  }

 private:
  void WantBlockEnd() {
    if (Now().type != TokenType::kBlockEnd)
      FailAt(Now().at, StrCat("want the end of the tag, found ", Shown(Now())));
    Take();
  }

  // Statements up to {% name %} with one of `ends`, whose name stays. Without ends: to the end.
  std::vector<Stmt> Body(const std::vector<std::string_view>& ends) {
    const Nested nested(this);
    std::vector<Stmt> body;
    while (true) {
      const Token& token = Now();
      switch (token.type) {
        case TokenType::kText:
          body.push_back(MakeStmt(StmtKind::kText, token.at));
          body.back().text = Take().text;
          break;
        case TokenType::kPrintBegin: {
          Stmt print = MakeStmt(StmtKind::kPrint, Take().at);
          print.value = TupleOrExpression();
          if (Now().type != TokenType::kPrintEnd)
            FailAt(Now().at, StrCat("want '}}', found ", Shown(Now())));
          Take();
          body.push_back(std::move(print));
          break;
        }
        case TokenType::kBlockBegin:
          Take();
          if (Now().type != TokenType::kName)
            FailAt(Now().at, StrCat("want a statement, found ", Shown(Now())));
          if (std::find(ends.begin(), ends.end(), Now().text) != ends.end()) return body;
          Statement(&body);
          break;
        default:
          if (!ends.empty()) FailAt(token.at, StrCat("want ", ends.back(), ", found the end"));
          return body;
      }
    }
  }

  static Stmt MakeStmt(StmtKind kind, Position at) {
    Stmt stmt;
    stmt.kind = kind;
    stmt.at = at;
    return stmt;
  }

  void Statement(std::vector<Stmt>* body) {
    const Token& token = Take();
    const std::string& name = token.text;
    if (name == "if") return body->push_back(If(token.at));
    if (name == "for") return body->push_back(For(token.at));
    if (name == "set") return body->push_back(Set(token.at));
    if (name == "macro") return body->push_back(Macro(token.at));
    if (name == "break" || name == "continue") {
      if (loops_ == 0) FailAt(token.at, StrCat("'", name, "' outside of a loop"));
      WantBlockEnd();
      return body->push_back(
          MakeStmt(name == "break" ? StmtKind::kBreak : StmtKind::kContinue, token.at));
    }
    if (name == "generation") {  // Marks what is trained on; the text is as without
      WantBlockEnd();
      std::vector<Stmt> inner = Body({"endgeneration"});
      Take();
      WantBlockEnd();
      for (Stmt& stmt : inner) body->push_back(std::move(stmt));
      return;
    }
    FailAt(token.at, StrCat("the statement '", name,
                            "' is not in the subset: if, for, set, macro, break, continue, "
                            "generation and raw are"));
  }

  Stmt If(Position at) {
    Stmt stmt = MakeStmt(StmtKind::kIf, at);
    stmt.conditions.push_back(Expression());
    WantBlockEnd();
    while (true) {
      stmt.bodies.push_back(Body({"elif", "else", "endif"}));
      const std::string word = Take().text;
      if (word == "elif") {
        stmt.conditions.push_back(Expression());
        WantBlockEnd();
        continue;
      }
      WantBlockEnd();
      if (word == "else") {
        stmt.bodies.push_back(Body({"endif"}));
        Take();
        WantBlockEnd();
      }
      return stmt;
    }
  }

  std::vector<std::string> Targets() {
    std::vector<std::string> names;
    const bool bracket = SkipOperator("(");
    do {
      if (IsOperator(")") || IsName("in") || IsOperator("=")) break;
      CheckTarget(Now());
      names.push_back(Name());
    } while (SkipOperator(","));
    if (bracket) WantOperator(")");
    if (names.empty()) FailAt(Now().at, "want a name to assign to");
    return names;
  }
  static void CheckTarget(const Token& token) {
    for (const std::string_view word : {"true", "false", "none", "True", "False", "None", "loop"})
      if (token.text == word) FailAt(token.at, StrCat("'", word, "' cannot be assigned to"));
  }

  Stmt For(Position at) {
    Stmt stmt = MakeStmt(StmtKind::kFor, at);
    stmt.targets = Targets();
    WantName("in");
    stmt.value = TupleOrExpression(/*conditional=*/false);
    if (SkipName("if")) stmt.conditions.push_back(Expression());
    if (IsName("recursive")) FailAt(Now().at, "recursive loops are not in the subset");
    WantBlockEnd();
    ++loops_;
    ++inner_scopes_;
    stmt.bodies.push_back(Body({"else", "endfor"}));
    --loops_;
    if (Take().text == "else") {
      WantBlockEnd();
      stmt.bodies.push_back(Body({"endfor"}));
      Take();
    }
    --inner_scopes_;
    WantBlockEnd();
    return stmt;
  }

  Stmt Set(Position at) {
    Stmt stmt = MakeStmt(StmtKind::kSet, at);
    CheckTarget(Now());
    if (Next().type == TokenType::kOperator && Next().text == ".") {
      std::string target = Name();
      Take();
      stmt.targets = {target + "." + Name()};
    } else {
      stmt.targets = Targets();
    }
    if (SkipOperator("=")) {
      stmt.value = TupleOrExpression();
      WantBlockEnd();
      return stmt;
    }
    stmt.kind = StmtKind::kSetBlock;
    if (stmt.targets.size() != 1) FailAt(at, "a set block has one name");
    stmt.value = Filters(nullptr);
    WantBlockEnd();
    stmt.bodies.push_back(Body({"endset"}));
    Take();
    WantBlockEnd();
    return stmt;
  }

  Stmt Macro(Position at) {
    if (inner_scopes_ > 0)
      FailAt(at, "a macro inside of a loop or macro is not in the subset; define it outside");
    Stmt stmt = MakeStmt(StmtKind::kMacro, at);
    stmt.text = Name();
    WantOperator("(");
    while (!IsOperator(")")) {
      CheckTarget(Now());
      stmt.targets.push_back(Name());
      if (SkipOperator("=")) {
        stmt.conditions.push_back(Expression());
      } else if (!stmt.conditions.empty()) {
        FailAt(Now().at, "an argument without a default behind one with");
      }
      if (!SkipOperator(",")) break;
    }
    WantOperator(")");
    WantBlockEnd();
    ++inner_scopes_;
    const int loops = std::exchange(loops_, 0);
    stmt.bodies.push_back(Body({"endmacro"}));
    loops_ = loops;
    --inner_scopes_;
    Take();
    WantBlockEnd();
    return stmt;
  }

  int loops_ = 0, inner_scopes_ = 0;
};

}  // namespace

std::vector<Stmt> Parse(std::string_view source) { return Parser(source).Run(); }

}  // namespace tern::text::jinja
