// See instruction.h.
#include "data/instruction.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/token_file.h"
#include "formats/strict_json.h"

namespace tern::data {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 64;  // Tools are JSON schemas

// How many tokens both begin with.
size_t CommonPrefix(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                             a.begin());
}

const std::string& Text(const json& record, const std::string& key, const std::string& where) {
  const auto found = record.find(key);
  TERN_CHECK_FORMAT(found != record.end() && found->is_string(), where, ": \"", key, "\" is ",
                    found == record.end() ? "missing" : found->type_name(), "; want a text");
  return found->get_ref<const std::string&>();
}

LabelledTokens Completion(const json& record, const InstructionOptions& options,
                          const text::Tokenizer& tokenizer, const std::string& where) {
  const std::string& prompt = Text(record, options.prompt_field, where);
  LabelledTokens out;
  out.text = prompt + Text(record, options.completion_field, where);
  out.tokens = DocumentTokens(out.text, tokenizer);
  if (options.prompts_count) return out;
  std::vector<int32_t> head = DocumentTokens(prompt, tokenizer);
  if (tokenizer.eos_id() >= 0) head.pop_back();
  out.labels.assign(out.tokens.size(), 1);
  std::fill_n(out.labels.begin(), CommonPrefix(out.tokens, head), uint8_t{0});
  return out;
}

class Conversation {
 public:
  Conversation(const json& record, const InstructionOptions& options, const std::string& where)
      : record_(record), options_(options), where_(where) {
    const auto found = record.find(options.messages_field);
    TERN_CHECK_FORMAT(found != record.end() && found->is_array() && !found->empty(), where, ": \"",
                      options.messages_field, "\" is ",
                      found == record.end() ? "missing" : "no list of messages",
                      "; want a list of {\"role\", \"content\"}");
    messages_ = &*found;
    for (const json& message : *messages_) Text(message, "role", where);
  }

  size_t size() const { return messages_->size(); }
  bool IsAnswer(size_t i) const { return (*messages_)[i]["role"] == "assistant"; }

  // What the template writes for the first `count` messages.
  std::string Render(size_t count, bool add_generation_prompt) const {
    json variables = {
        {"messages", json(messages_->begin(), messages_->begin() + static_cast<int64_t>(count))},
        {"add_generation_prompt", add_generation_prompt}};
    for (const char* key : {"tools", "documents"})
      if (record_.contains(key)) variables[key] = record_[key];
    try {
      return options_.chat->RenderJson(variables.dump());
    } catch (const InputError& error) {
      throw InputError(StrCat(where_, ": ", error.what()));
    }
  }

 private:
  const json& record_;
  const InstructionOptions& options_;
  const std::string& where_;
  const json* messages_ = nullptr;
};

LabelledTokens Messages(const json& record, const InstructionOptions& options,
                        const text::Tokenizer& tokenizer, const std::string& where) {
  const Conversation talk(record, options, where);
  LabelledTokens out;
  out.text = talk.Render(talk.size(), false);
  out.tokens = tokenizer.EncodeWithSpecial(out.text);
  if (options.prompts_count) return out;
  out.labels.assign(out.tokens.size(), 0);
  for (size_t i = 0; i < talk.size(); ++i) {
    if (!talk.IsAnswer(i)) continue;
    const std::string before = talk.Render(i, true), behind = talk.Render(i + 1, false);
    TERN_CHECK_INPUT(
        out.text.starts_with(behind) && behind.starts_with(before), where,
        ": the chat template writes message ", i + 1,
        " in another way when it is the last, or than it asks for an answer, so the "
        "answer cannot be found in the text; want prompts_count: true, or a record that "
        "ends there");
    const size_t begin = CommonPrefix(out.tokens, tokenizer.EncodeWithSpecial(before)),
                 end = CommonPrefix(out.tokens, tokenizer.EncodeWithSpecial(behind));
    std::fill(out.labels.begin() + static_cast<int64_t>(begin),
              out.labels.begin() + static_cast<int64_t>(end), uint8_t{1});
  }
  return out;
}

}  // namespace

const char* RecordKindName(RecordKind kind) {
  switch (kind) {
    case RecordKind::kText:
      return "text";
    case RecordKind::kMessages:
      return "messages";
    case RecordKind::kCompletion:
      return "completion";
  }
  __builtin_unreachable();
}

LabelledTokens EncodeInstruction(std::string_view record, const InstructionOptions& options,
                                 const text::Tokenizer& tokenizer, const std::string& where) {
  TERN_CHECK(options.kind != RecordKind::kText, where);
  formats::JsonLimits limits;
  limits.depth = kMaxDepth;
  const json parsed = formats::ParseStrictJson(record, where, limits);
  TERN_CHECK_FORMAT(parsed.is_object(), where, ": want a JSON object");
  LabelledTokens out;
  if (options.kind == RecordKind::kMessages) {
    TERN_CHECK(options.chat.has_value(), "no chat template");
    out = Messages(parsed, options, tokenizer, where);
  } else {
    out = Completion(parsed, options, tokenizer, where);
  }
  // The first token has nothing before it to be predicted from.
  const bool counts = out.labels.empty() ? out.tokens.size() > 1
                                         : std::find(out.labels.begin() + 1, out.labels.end(), 1) !=
                                               out.labels.end();
  TERN_CHECK_INPUT(
      counts, where, ": no token of the record counts in the loss; want ",
      options.kind == RecordKind::kMessages ? "a message of the role assistant" : "a completion",
      ", or prompts_count: true");
  return out;
}

}  // namespace tern::data
