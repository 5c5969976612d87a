// See chat_template.h.
#include "text/chat_template.h"

#include <utility>

#include "base/error.h"
#include "base/utf8.h"
#include "text/jinja_ast.h"
#include "text/jinja_eval.h"

namespace tern::text {
namespace {

constexpr size_t kMaxSource = size_t{1} << 20;  // Real ones have up to 20 kB

}  // namespace

struct ChatTemplate::Impl {
  std::string source, bos_token, eos_token;
  std::vector<jinja::Stmt> body;

  using Variables = std::vector<std::pair<jinja::Value, jinja::Value>>;

  // `variables` are made inside of it, since values that are too large throw a TemplateError.
  template <class MakeVariables>
  std::string Render(MakeVariables make) const {
    try {
      return RenderThese(make());
    } catch (const jinja::TemplateError& error) {
      throw FormatError("the variables of a chat template: " + error.message);
    }
  }

  std::string RenderThese(Variables variables) const {
    const auto add = [&](const char* name, jinja::Value value) {
      for (const auto& [key, unused] : variables)
        if (*key.String() == name) return;
      variables.emplace_back(jinja::MakeString(name), std::move(value));
    };
    add("bos_token", jinja::MakeString(bos_token));
    add("eos_token", jinja::MakeString(eos_token));
    add("tools", jinja::MakeNone());
    add("documents", jinja::MakeNone());
    add("add_generation_prompt", jinja::MakeBool(false));
    return jinja::Render(body, jinja::MakeDict(std::move(variables)));
  }
};

ChatTemplate::ChatTemplate(std::string source, std::string bos_token, std::string eos_token) {
  TERN_CHECK_FORMAT(source.size() <= kMaxSource, "the chat template has ", source.size(),
                    " bytes; want at most ", kMaxSource);
  TERN_CHECK_FORMAT(
      !FirstInvalidUtf8(source) && !FirstInvalidUtf8(bos_token) && !FirstInvalidUtf8(eos_token),
      "the chat template or its BOS or EOS text is not UTF-8");
  auto impl = std::make_shared<Impl>();
  impl->body = jinja::Parse(source);
  impl->source = std::move(source);
  impl->bos_token = std::move(bos_token);
  impl->eos_token = std::move(eos_token);
  impl_ = std::move(impl);
}

std::string ChatTemplate::Render(const std::vector<ChatMessage>& messages,
                                 bool add_generation_prompt) const {
  for (const ChatMessage& message : messages) {
    CheckText(message.role, "role");
    CheckText(message.content, "content");
  }
  return impl_->Render([&]() -> Impl::Variables {
    std::vector<jinja::Value> list;
    for (const ChatMessage& message : messages) {
      list.push_back(
          jinja::MakeDict({{jinja::MakeString("role"), jinja::MakeString(message.role)},
                           {jinja::MakeString("content"), jinja::MakeString(message.content)}}));
    }
    return {{jinja::MakeString("messages"), jinja::MakeList(std::move(list))},
            {jinja::MakeString("add_generation_prompt"), jinja::MakeBool(add_generation_prompt)}};
  });
}

std::string ChatTemplate::RenderJson(std::string_view variables) const {
  const jinja::Value parsed = jinja::ParseJson(variables);
  const jinja::Dict* dict = parsed.AsDict();
  TERN_CHECK_FORMAT(dict != nullptr, "the variables of a chat template are no JSON object");
  const jinja::Value* messages = jinja::Find(*dict, std::string_view("messages"));
  TERN_CHECK_FORMAT(messages != nullptr && messages->AsList() != nullptr,
                    "the variables of a chat template have no list \"messages\"");
  return impl_->Render([&] { return dict->items; });
}

const std::string& ChatTemplate::source() const { return impl_->source; }

}  // namespace tern::text
