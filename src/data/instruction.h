// Records of instruction data as tokens and labels: conversations ({"messages": [...]}) through the
// model's chat template, and pairs of a prompt and its completion. A label says whether a token
// counts in the loss as what is to be predicted; prompts do not, unless asked for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace tern::data {

enum class RecordKind { kText, kMessages, kCompletion };
const char* RecordKindName(RecordKind kind);  // "text", "messages", "completion"

struct InstructionOptions {
  RecordKind kind = RecordKind::kText;  // kText: no instruction data, all else is ignored
  std::string messages_field = "messages", prompt_field = "prompt", completion_field = "completion";
  bool prompts_count = false;              // All tokens count
  std::optional<text::ChatTemplate> chat;  // Of kMessages
};

struct LabelledTokens {
  std::string text;             // What the tokens are of, without BOS and EOS
  std::vector<int32_t> tokens;  // As the model reads them
  std::vector<uint8_t> labels;  // 1: counts; one a token. Empty: all count
};

// `record`: a JSON object. kCompletion: BOS, prompt and completion as one text, EOS; the completion
// and EOS count. kMessages: what the template writes (no BOS or EOS is added; "tools" and
// "documents" of the record are given to it); what it writes for the assistant's messages counts,
// with the tokens that end a turn. Prompt and answer are encoded together, as they are read; a
// token that spans their border counts. Throws FormatError for what is no such record, InputError
// when the template refuses it or rewrites a turn when others follow (so that its answer cannot be
// found), and when no token counts; both name `where`. REQUIRES: kind is not kText; kMessages:
// chat.
LabelledTokens EncodeInstruction(std::string_view record, const InstructionOptions& options,
                                 const text::Tokenizer& tokenizer, const std::string& where);

}  // namespace tern::data
