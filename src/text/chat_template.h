// Chat templates: a Jinja program of a model's authors that writes messages as the one text that
// the model was trained on. Run by an interpreter of our own for the subset of Jinja 2 that such
// templates use, with the settings of transformers' apply_chat_template (trim_blocks,
// lstrip_blocks, no autoescape, nothing that changes a value in place, loop controls, generation
// blocks). What is outside of the subset is refused when the template is read, not guessed.
// Templates are not trusted: steps, nesting, memory and output are limited (jinja_eval.h).
// Does not tokenize: encode the result with Tokenizer::EncodeWithSpecial, which knows the special
// tokens that it spells, and add no BOS: the template has written it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tern::text {

struct ChatMessage {
  std::string role, content;
};

// A copy is cheap; may be used by several threads at once.
class ChatTemplate {
 public:
  // bos_token and eos_token: their texts, as templates spell them; empty when the model has none.
  // Throws FormatError with line and column for a syntax error or what is outside of the subset.
  ChatTemplate(std::string source, std::string bos_token, std::string eos_token);

  // Throws InputError for messages that the template refuses (raise_exception) or that lack what it
  // reads, with the line of the template; FormatError when it goes beyond a limit.
  std::string Render(const std::vector<ChatMessage>& messages, bool add_generation_prompt) const;

  // The same with everything a template may read: `variables` is a JSON object with "messages"
  // (objects with any members: tool_calls, ...), "add_generation_prompt", and what else is there:
  // "tools", "documents", "enable_thinking", ... Absent tools and documents are none, as in
  // transformers. Throws FormatError also when `variables` is no such JSON.
  std::string RenderJson(std::string_view variables) const;

  const std::string& source() const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace tern::text
