// Answers of OpenAI's completions and chat interfaces as JSON text, whole and as parts of a stream.
// Pure functions of what the scheduler brought; shapes after OpenAI's API reference.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "serve/api_error.h"
#include "serve/generation.h"

namespace tern::serve {

enum class ApiKind { kCompletion, kChat };

// What every answer of one request says.
struct AnswerHead {
  ApiKind kind = ApiKind::kCompletion;
  std::string id, model;
  int64_t created = 0;  // Seconds since 1970
  bool logprobs = false;
  const text::Tokenizer* tokenizer = nullptr;
};

struct Usage {
  int64_t prompt_tokens = 0, completion_tokens = 0;
};

// One choice, or what is new of it.
struct ChoicePart {
  int64_t index = 0;
  std::string text;
  std::vector<ScoredToken> tokens;  // With an echo, the prompt's come first
  int64_t text_offset = 0;          // Of the first token, in characters
  std::optional<FinishReason> finish;
};

std::string WholeAnswer(const AnswerHead& head, const std::vector<ChoicePart>& choices,
                        const Usage& usage);
// The JSON of one event. `usage_later`: the stream ends with a part of UsagePart.
std::string StreamPart(const AnswerHead& head, const ChoicePart& part, bool usage_later);
// The first part of a chat's choice: who speaks.
std::string RolePart(const AnswerHead& head, int64_t index, bool usage_later);
std::string UsagePart(const AnswerHead& head, const Usage& usage);

// {"error": {message, type, param, code}}
std::string ErrorBody(const ApiError& error);
// One model, and the list of it.
std::string ModelBody(const std::string& id, int64_t created, int64_t context);
std::string ModelListBody(const std::string& id, int64_t created, int64_t context);

// How a token is spelled in log probabilities: its text, the piece's name for a control token, and
// "bytes:\x.." when its bytes alone are no UTF-8.
std::string TokenName(const text::Tokenizer& tokenizer, int32_t id);

// Characters (code points) of UTF-8.
int64_t CharacterCount(std::string_view text);

}  // namespace tern::serve
