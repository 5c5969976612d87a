// Requests of OpenAI's completions and chat interfaces: JSON text to checked, typed values. Every
// member that is not known, not of its type or not in its range is refused with its name; what is
// accepted without effect is listed in docs/serving.md. Pure functions; knows no model and no
// socket.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/generate_options.h"
#include "text/chat_template.h"

namespace tern::serve {

inline constexpr int64_t kMaxTopLogprobs = 20;
inline constexpr int64_t kMaxChoices = 256;    // Prompts times n of one request
inline constexpr int64_t kMaxStops = 16;       // Stop strings
inline constexpr int64_t kMaxStopBytes = 256;  // Of each
inline constexpr int64_t kMaxMessages = 4096;  // Of a chat

using Prompt = std::variant<std::string, std::vector<int32_t>>;

// What both interfaces share.
struct CommonRequest {
  std::string model;                  // Empty: not given
  std::optional<int64_t> max_tokens;  // New tokens of each choice
  engine::SamplingOptions sampling;
  bool seeded = false;  // The request gave sampling.seed
  std::vector<std::string> stop;
  int64_t n = 1;
  int64_t top_logprobs = -1;  // -1: no log probabilities; 0: of the tokens alone
  bool ignore_eos = false;
  bool stream = false, include_usage = false;
};

struct CompletionRequest : CommonRequest {
  std::vector<Prompt> prompts;
  bool echo = false;
};

struct ChatRequest : CommonRequest {
  std::vector<text::ChatMessage> messages;
};

// Throw ApiError 400.
CompletionRequest ParseCompletionRequest(std::string_view body);
ChatRequest ParseChatRequest(std::string_view body);

}  // namespace tern::serve
