// See jinja_eval.h. A tree walker: scopes are dictionaries that are looked through from the inside
// out; a loop or macro opens one, `if` does not, as in jinja2.
#include "text/jinja_eval.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <deque>
#include <map>
#include <utility>

#include "base/error.h"
#include "text/jinja_builtins.h"

namespace tern::text::jinja {

struct Namespace {
  std::map<std::string, Value, std::less<>> members;
};

namespace {

constexpr int kMaxDepth = 400;

enum class Flow { kNext, kBreak, kContinue };

using Scope = std::map<std::string, Value, std::less<>>;

class Evaluator {
 public:
  Evaluator(const Value& globals, const Limits& limits) : budget_(limits) {
    for (const auto& [key, value] : globals.AsDict()->items)
      globals_.insert_or_assign(*key.String(), value);
    for (const char* name : {"raise_exception", "strftime_now", "range", "namespace", "dict"}) {
      auto function = std::make_shared<Callable>();
      function->name = name;
      globals_.emplace(name, Value{Value::CallablePtr(std::move(function))});
    }
    scopes_.push_back(&globals_);
  }

  std::string Run(const std::vector<Stmt>& body) {
    try {
      Body(body);
    } catch (const TemplateError& error) {
      const std::string text = StrCat("chat template, line ", at_.line, ": ", error.message);
      if (error.limit) throw FormatError(text);
      throw InputError(text);
    }
    return std::move(out_);
  }

 private:
  class Level {
   public:
    explicit Level(Evaluator* evaluator) : evaluator_(evaluator) {
      if (evaluator->depth_ >= kMaxDepth)
        throw TemplateError{StrCat("nested deeper than ", kMaxDepth, " levels"), true};
      ++evaluator->depth_;
    }
    ~Level() { --evaluator_->depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Evaluator* evaluator_;
  };

  void Print(std::string_view text) {
    budget_.Bytes(text.size());
    out_ += text;
  }

  Flow Body(const std::vector<Stmt>& body) {
    const Level level(this);
    for (const Stmt& stmt : body) {
      budget_.Step();
      const Flow flow = Run(stmt);
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  Flow Run(const Stmt& stmt) {
    at_ = stmt.at;
    switch (stmt.kind) {
      case StmtKind::kText:
        Print(stmt.text);
        return Flow::kNext;
      case StmtKind::kPrint:
        Print(Str(Eval(*stmt.value), &budget_));
        return Flow::kNext;
      case StmtKind::kIf:
        for (size_t i = 0; i < stmt.conditions.size(); ++i)
          if (Truthy(Eval(*stmt.conditions[i]))) return Body(stmt.bodies[i]);
        return stmt.bodies.size() > stmt.conditions.size() ? Body(stmt.bodies.back()) : Flow::kNext;
      case StmtKind::kFor:
        return For(stmt);
      case StmtKind::kSet:
        Assign(stmt.targets, Eval(*stmt.value));
        return Flow::kNext;
      case StmtKind::kSetBlock:
        SetBlock(stmt);
        return Flow::kNext;
      case StmtKind::kMacro: {
        auto macro = std::make_shared<Callable>();
        macro->kind = Callable::Kind::kMacro;
        macro->name = stmt.text;
        macro->macro = &stmt;
        (*scopes_.back())[stmt.text] = {Value::CallablePtr(std::move(macro))};
        return Flow::kNext;
      }
      case StmtKind::kBreak:
        return Flow::kBreak;
      case StmtKind::kContinue:
        return Flow::kContinue;
    }
    __builtin_unreachable();
  }

  void Assign(const std::vector<std::string>& targets, const Value& value) {
    if (targets.size() > 1) {
      const std::vector<Value> parts = Elements(value, &budget_);
      if (parts.size() != targets.size())
        Fail(StrCat(parts.size(), " values for ", targets.size(), " names"));
      for (size_t i = 0; i < parts.size(); ++i) (*scopes_.back())[targets[i]] = parts[i];
      return;
    }
    const std::string& target = targets[0];
    const size_t dot = target.find('.');
    if (dot == std::string::npos) {
      (*scopes_.back())[target] = value;
      return;
    }
    const Value space = Lookup(target.substr(0, dot));
    auto* const* found = space.As<Namespace*>();
    if (found == nullptr)
      Fail(StrCat(target.substr(0, dot), " is ", TypeName(space), "; only namespaces change"));
    (*found)->members[target.substr(dot + 1)] = value;
  }

  void SetBlock(const Stmt& stmt) {
    std::string outer = std::exchange(out_, "");
    Scope scope;
    scopes_.push_back(&scope);
    Body(stmt.bodies[0]);
    scopes_.pop_back();
    Value text = MakeString(std::exchange(out_, std::move(outer)));
    if (stmt.value) {
      block_text_ = std::move(text);
      text = Eval(*stmt.value);
    }
    Assign(stmt.targets, text);
  }

  Flow For(const Stmt& stmt) {
    std::vector<Value> items = Elements(Eval(*stmt.value), &budget_);
    Scope scope;
    scopes_.push_back(&scope);
    if (!stmt.conditions.empty()) {
      std::vector<Value> kept;
      for (Value& item : items) {
        scope.clear();
        Assign(stmt.targets, item);
        if (Truthy(Eval(*stmt.conditions[0]))) kept.push_back(std::move(item));
      }
      items = std::move(kept);
    }
    // A template may keep the loop beyond its end, and in the items of another: a list's limits.
    auto loop = std::make_shared<LoopState>();
    loop->list = *MakeList(std::move(items)).As<Value::ListPtr>();
    Flow flow = Flow::kNext;
    const auto size = static_cast<int64_t>(loop->list->items.size());
    for (; loop->index < size; ++loop->index) {
      scope.clear();
      scope["loop"] = {Value::LoopPtr(loop)};
      Assign(stmt.targets, loop->list->items[static_cast<size_t>(loop->index)]);
      if (Body(stmt.bodies[0]) == Flow::kBreak) break;
    }
    scope.clear();
    if (size == 0 && stmt.bodies.size() > 1) flow = Body(stmt.bodies[1]);
    scopes_.pop_back();
    return flow;
  }

  Value Lookup(const std::string& name) {
    budget_.Step(static_cast<int64_t>(scopes_.size() / 4));
    for (size_t i = scopes_.size(); i-- > 0;) {
      const auto found = scopes_[i]->find(name);
      if (found != scopes_[i]->end()) return found->second;
    }
    return MakeUndefined(name);
  }

  Value Eval(const Expr& expr) {
    const Level level(this);
    budget_.Step();
    const auto arg = [&](size_t i) { return Eval(*expr.args[i]); };
    switch (expr.kind) {
      case ExprKind::kConstant:
        return expr.value;
      case ExprKind::kName:
        return Lookup(expr.name);
      case ExprKind::kList:
      case ExprKind::kTuple: {
        std::vector<Value> items;
        for (const ExprPtr& item : expr.args) items.push_back(Eval(*item));
        return MakeList(std::move(items), expr.kind == ExprKind::kTuple);
      }
      case ExprKind::kDict:
        return Dictionary(expr);
      case ExprKind::kAttribute:
        return Attribute(arg(0), expr.name);
      case ExprKind::kSubscript: {
        const Value object = arg(0);
        return Subscript(object, arg(1));
      }
      case ExprKind::kSlice: {
        const auto part = [&](size_t i) { return expr.args[i] ? arg(i) : MakeNone(); };
        return jinja::Slice(arg(0), part(1), part(2), part(3), &budget_);
      }
      case ExprKind::kCall:
        return Call(expr);
      case ExprKind::kFilter: {
        const Value value = expr.args[0] ? arg(0) : std::exchange(block_text_, Value{});
        const Args args = Arguments(expr);
        at_ = expr.at;
        return CallFilter(expr.name, value, args, &budget_);
      }
      case ExprKind::kTest: {
        const Value value = arg(0);
        return MakeBool(CallTest(expr.name, value, Arguments(expr), &budget_));
      }
      default:
        return Operation(expr);
    }
  }

  // Operators and what decides which of its operands is run.
  Value Operation(const Expr& expr) {
    const auto arg = [&](size_t i) { return Eval(*expr.args[i]); };
    switch (expr.kind) {
      case ExprKind::kNot:
        return MakeBool(!Truthy(arg(0)));
      case ExprKind::kNegate:
        return Negate(arg(0));
      case ExprKind::kAnd: {
        Value left = arg(0);
        return Truthy(left) ? arg(1) : left;
      }
      case ExprKind::kOr: {
        Value left = arg(0);
        return Truthy(left) ? left : arg(1);
      }
      case ExprKind::kBinary: {
        const Value left = arg(0), right = arg(1);
        at_ = expr.at;
        return Binary(expr.name, left, right, &budget_);
      }
      case ExprKind::kCompare:
        return Compare(expr);
      case ExprKind::kConditional:
        if (Truthy(arg(0))) return arg(1);
        return expr.args[2] ? arg(2) : MakeUndefined("");
      default:
        break;
    }
    __builtin_unreachable();
  }

  Value Dictionary(const Expr& expr) {
    std::vector<std::pair<Value, Value>> items;
    for (size_t i = 0; i + 1 < expr.args.size(); i += 2) {
      Value key = Eval(*expr.args[i]);
      Value value = Eval(*expr.args[i + 1]);
      bool replaced = false;
      for (auto& item : items) {
        if (!Equal(item.first, key, &budget_)) continue;
        item.second = value;
        replaced = true;
      }
      if (!replaced) items.emplace_back(std::move(key), std::move(value));
    }
    return MakeDict(std::move(items));
  }

  Value LoopMember(const LoopState& loop, const std::string& name) const {
    const auto size = static_cast<int64_t>(loop.list->items.size());
    const auto item = [&](int64_t i) {
      return i < 0 || i >= size ? MakeUndefined("loop." + name)
                                : loop.list->items[static_cast<size_t>(i)];
    };
    if (name == "index") return MakeInt(loop.index + 1);
    if (name == "index0") return MakeInt(loop.index);
    if (name == "revindex") return MakeInt(size - loop.index);
    if (name == "revindex0") return MakeInt(size - loop.index - 1);
    if (name == "first") return MakeBool(loop.index == 0);
    if (name == "last") return MakeBool(loop.index + 1 == size);
    if (name == "length") return MakeInt(size);
    if (name == "depth") return MakeInt(1);  // Only recursive loops, outside of the subset, nest
    if (name == "depth0") return MakeInt(0);
    if (name == "previtem") return item(loop.index - 1);
    if (name == "nextitem") return item(loop.index + 1);
    Fail(StrCat("loop.", name, " is not in the subset"));
  }

  Value Attribute(const Value& value, const std::string& name) {
    if (auto* const* space = value.As<Namespace*>()) {
      const auto found = (*space)->members.find(name);
      return found == (*space)->members.end() ? MakeUndefined(name) : found->second;
    }
    if (const auto* loop = value.As<Value::LoopPtr>()) return LoopMember(**loop, name);
    if (HasMethod(value, name)) return MakeMethod(name, value);
    return Member(value, MakeString(name), &budget_);
  }

  Value Subscript(const Value& value, const Value& key) {
    if (key.String() != nullptr && (value.Is<Namespace*>() || value.Is<Value::LoopPtr>()))
      return Attribute(value, *key.String());
    return Member(value, key, &budget_);
  }

  Args Arguments(const Expr& expr) {
    Args args;
    for (size_t i = 1; i < expr.args.size(); ++i) args.positional.push_back(Eval(*expr.args[i]));
    for (const auto& [name, value] : expr.keywords) args.named.emplace_back(name, Eval(*value));
    return args;
  }

  Value Call(const Expr& expr) {
    const Value callee = Eval(*expr.args[0]);
    const auto* callable = callee.As<Value::CallablePtr>();
    const Expr& name = *expr.args[0];
    at_ = expr.at;
    if (callable == nullptr) {
      Fail(StrCat(name.name.empty() ? "what is called" : "'" + name.name + "'", " is ",
                  TypeName(callee), ", which cannot be called"));
    }
    const Args args = Arguments(expr);
    at_ = expr.at;
    switch ((*callable)->kind) {
      case Callable::Kind::kMethod:
        return CallMethod((*callable)->self, (*callable)->name, args, &budget_);
      case Callable::Kind::kMacro:
        return CallMacro(*(*callable)->macro, args);
      case Callable::Kind::kFunction:
        return CallFunction((*callable)->name, args);
    }
    __builtin_unreachable();
  }

  Value CallMacro(const Stmt& macro, const Args& args) {
    Scope scope;
    const size_t count = macro.targets.size(), required = count - macro.conditions.size();
    if (args.positional.size() > count)
      Fail(
          StrCat("macro ", macro.text, " has ", count, " arguments, not ", args.positional.size()));
    for (const auto& [name, value] : args.named) {
      if (std::find(macro.targets.begin(), macro.targets.end(), name) == macro.targets.end())
        Fail(StrCat("macro ", macro.text, " has no argument ", name));
    }
    // A macro sees the names of the template, not those of its caller.
    std::vector<Scope*> callers = std::exchange(scopes_, {&globals_, &scope});
    std::string outer = std::exchange(out_, "");
    for (size_t i = 0; i < count; ++i) {
      const Value* given = args.Get(i, macro.targets[i]);
      scope[macro.targets[i]] = given != nullptr ? *given
                                : i >= required  ? Eval(*macro.conditions[i - required])
                                                 : MakeUndefined(macro.targets[i]);
    }
    Body(macro.bodies[0]);
    scopes_ = std::move(callers);
    return MakeString(std::exchange(out_, std::move(outer)));
  }

  Value CallFunction(const std::string& name, const Args& args) {
    if (name == "raise_exception") {
      args.Want(name, 1, 1);
      Fail("the template refuses the messages: " + Shown(args.positional[0]));
    }
    if (name == "strftime_now") {
      args.Want(name, 1, 1);
      const std::time_t now = std::time(nullptr);
      std::tm local{};
      std::array<char, 256> buffer{};
      if (localtime_r(&now, &local) == nullptr) Fail("strftime_now: no local time");
      const size_t size =
          std::strftime(buffer.data(), buffer.size(), args.Text(0, "format", "").c_str(), &local);
      return MakeString(std::string(buffer.data(), size));
    }
    if (name == "range") return Range(args);
    if (name == "namespace") {
      budget_.Bytes(256);
      Namespace& space = namespaces_.emplace_back();
      if (!args.positional.empty()) {
        const Dict* dict = args.positional[0].AsDict();
        if (dict == nullptr) Fail("namespace wants a dictionary or arguments with names");
        budget_.Step(static_cast<int64_t>(dict->items.size()));
        for (const auto& [key, value] : dict->items) space.members[Str(key, &budget_)] = value;
      }
      for (const auto& [key, value] : args.named) space.members[key] = value;
      return {&space};
    }
    std::vector<std::pair<Value, Value>> items;  // dict(a=1)
    if (!args.positional.empty()) {
      if (args.positional[0].AsDict() == nullptr) Fail("dict wants a dictionary");
      items = args.positional[0].AsDict()->items;
      budget_.Step(static_cast<int64_t>(items.size()));
    }
    for (const auto& [key, value] : args.named) items.emplace_back(MakeString(key), value);
    return MakeDict(std::move(items));
  }

  Value Range(const Args& args) {
    args.Want("range", 1, 3);
    const bool one = args.positional.size() == 1;
    const int64_t begin = one ? 0 : args.Int(0, "", 0), end = args.Int(one ? 0 : 1, "", 0);
    const int64_t step = args.Int(2, "", 1);
    if (step == 0) Fail("range: the step is 0");
    std::vector<Value> items;
    for (int64_t i = begin; step > 0 ? i < end : i > end;) {
      budget_.Step();
      items.push_back(MakeInt(i));
      if (__builtin_add_overflow(i, step, &i)) break;
    }
    return MakeList(std::move(items));
  }

  Value Compare(const Expr& expr) {
    Value left = Eval(*expr.args[0]);
    for (size_t i = 0; i < expr.names.size(); ++i) {
      Value right = Eval(*expr.args[i + 1]);
      at_ = expr.at;
      const std::string& op = expr.names[i];
      bool holds = false;
      if (op == "==") holds = Equal(left, right, &budget_);
      if (op == "!=") holds = !Equal(left, right, &budget_);
      if (op == "<") holds = Less(left, right, &budget_);
      if (op == ">") holds = Less(right, left, &budget_);
      if (op == "<=") holds = !Less(right, left, &budget_);
      if (op == ">=") holds = !Less(left, right, &budget_);
      if (op == "in") holds = Contains(right, left, &budget_);
      if (op == "not in") holds = !Contains(right, left, &budget_);
      if (!holds) return MakeBool(false);
      left = std::move(right);
    }
    return MakeBool(true);
  }

  Scope globals_;
  std::vector<Scope*> scopes_;
  std::deque<Namespace> namespaces_;
  Budget budget_;
  std::string out_;
  Value block_text_;
  Position at_;
  int depth_ = 0;
};

}  // namespace

std::string Render(const std::vector<Stmt>& body, const Value& globals, const Limits& limits) {
  return Evaluator(globals, limits).Run(body);
}

}  // namespace tern::text::jinja
