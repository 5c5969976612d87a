// See openai_response.h.
#include "serve/openai_response.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/utf8.h"

namespace tern::serve {
namespace {

using nlohmann::json;

// Text of a model is whole UTF-8 (StreamDecoder); what a client sent is, too (strict_json.h).
std::string Dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

json Optional(const std::string& text) { return text.empty() ? json() : json(text); }

json FinishName(const std::optional<FinishReason>& finish) {
  if (!finish) return nullptr;
  return *finish == FinishReason::kStop ? "stop" : "length";
}

json CompletionLogprobs(const AnswerHead& head, const ChoicePart& part) {
  json tokens = json::array(), logprobs = json::array(), tops = json::array(),
       offsets = json::array();
  int64_t offset = part.text_offset;
  for (const ScoredToken& token : part.tokens) {
    const std::string name = TokenName(*head.tokenizer, token.id);
    tokens.push_back(name);
    offsets.push_back(offset);
    offset += CharacterCount(token.text);
    if (!token.logprob) {  // The first of all: nothing predicts it
      logprobs.push_back(nullptr);
      tops.push_back(nullptr);
      continue;
    }
    logprobs.push_back(*token.logprob);
    json top = json::object();
    // Tokens may share a spelling: the more probable one has it. The token itself is always there.
    for (const auto& [id, logprob] : token.top)
      top.emplace(TokenName(*head.tokenizer, id), logprob);
    top.emplace(name, *token.logprob);
    tops.push_back(std::move(top));
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

json ChatToken(const text::Tokenizer& tokenizer, int32_t id, double logprob) {
  json bytes = json::array();
  if (id < tokenizer.vocab_size()) {
    for (const char byte : tokenizer.BytesOf(id)) bytes.push_back(static_cast<unsigned char>(byte));
  }
  return {{"token", TokenName(tokenizer, id)}, {"logprob", logprob}, {"bytes", std::move(bytes)}};
}

json ChatLogprobs(const AnswerHead& head, const ChoicePart& part) {
  json content = json::array();
  for (const ScoredToken& token : part.tokens) {
    json entry = ChatToken(*head.tokenizer, token.id, token.logprob.value_or(0));
    entry["top_logprobs"] = json::array();
    for (const auto& [id, logprob] : token.top)
      entry["top_logprobs"].push_back(ChatToken(*head.tokenizer, id, logprob));
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}};
}

json Choice(const AnswerHead& head, const ChoicePart& part, bool stream) {
  json choice = {
      {"index", part.index}, {"logprobs", nullptr}, {"finish_reason", FinishName(part.finish)}};
  if (head.kind == ApiKind::kCompletion) {
    choice["text"] = part.text;
    if (head.logprobs) choice["logprobs"] = CompletionLogprobs(head, part);
    return choice;
  }
  if (stream) {
    choice["delta"] = json::object();
    if (!part.text.empty()) choice["delta"]["content"] = part.text;
  } else {
    choice["message"] = {{"role", "assistant"}, {"content", part.text}};
  }
  if (head.logprobs) choice["logprobs"] = ChatLogprobs(head, part);
  return choice;
}

json Frame(const AnswerHead& head, bool stream) {
  const char* object = head.kind == ApiKind::kCompletion ? "text_completion"
                       : stream                          ? "chat.completion.chunk"
                                                         : "chat.completion";
  return {{"id", head.id},
          {"object", object},
          {"created", head.created},
          {"model", head.model},
          {"choices", json::array()}};
}

json UsageOf(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

json Model(const std::string& id, int64_t created, int64_t context) {
  return {{"id", id},
          {"object", "model"},
          {"created", created},
          {"owned_by", "tern"},
          {"max_model_len", context}};
}

const char* ErrorType(int status) {
  if (status == 401) return "authentication_error";
  if (status == 403) return "permission_error";
  if (status == 429) return "rate_limit_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

}  // namespace

std::string WholeAnswer(const AnswerHead& head, const std::vector<ChoicePart>& choices,
                        const Usage& usage) {
  json answer = Frame(head, false);
  for (const ChoicePart& part : choices) answer["choices"].push_back(Choice(head, part, false));
  answer["usage"] = UsageOf(usage);
  return Dump(answer);
}

std::string StreamPart(const AnswerHead& head, const ChoicePart& part, bool usage_later) {
  json answer = Frame(head, true);
  answer["choices"].push_back(Choice(head, part, true));
  if (usage_later) answer["usage"] = nullptr;
  return Dump(answer);
}

std::string RolePart(const AnswerHead& head, int64_t index, bool usage_later) {
  json answer = Frame(head, true);
  answer["choices"].push_back({{"index", index},
                               {"delta", {{"role", "assistant"}, {"content", ""}}},
                               {"logprobs", nullptr},
                               {"finish_reason", nullptr}});
  if (usage_later) answer["usage"] = nullptr;
  return Dump(answer);
}

std::string UsagePart(const AnswerHead& head, const Usage& usage) {
  json answer = Frame(head, true);
  answer["usage"] = UsageOf(usage);
  return Dump(answer);
}

std::string ErrorBody(const ApiError& error) {
  return Dump({{"error",
                {{"message", error.what()},
                 {"type", ErrorType(error.status)},
                 {"param", Optional(error.param)},
                 {"code", Optional(error.code)}}}});
}

std::string ModelBody(const std::string& id, int64_t created, int64_t context) {
  return Dump(Model(id, created, context));
}

std::string ModelListBody(const std::string& id, int64_t created, int64_t context) {
  return Dump({{"object", "list"}, {"data", json::array({Model(id, created, context)})}});
}

std::string TokenName(const text::Tokenizer& tokenizer, int32_t id) {
  // Rows of the model beyond the tokenizer's pieces (padding) can be probable, never chosen.
  if (id >= tokenizer.vocab_size()) return "<unused " + std::to_string(id) + ">";
  const std::string& bytes = tokenizer.BytesOf(id);
  if (bytes.empty()) return tokenizer.piece(id);
  if (!FirstInvalidUtf8(bytes)) return bytes;
  std::string name = "bytes:";
  for (const char byte : bytes) {
    char hex[8];
    std::snprintf(hex, sizeof hex, "\\x%02x", static_cast<unsigned char>(byte));
    name += hex;
  }
  return name;
}

int64_t CharacterCount(std::string_view text) {
  int64_t count = 0;
  for (const char byte : text) count += (static_cast<unsigned char>(byte) & 0xC0) != 0x80 ? 1 : 0;
  return count;
}

}  // namespace tern::serve
