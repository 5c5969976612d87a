// What a Hugging Face folder, or a model file made of one, holds beside its weights: tokenizer and
// chat template.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace tern::engine {

// Bytes by file name, as ModelSource::Files has them.
using ModelFiles = std::map<std::string, std::string>;

// tokenizer.model (SentencePiece), or else tokenizer.json with EOS as tokenizer_config.json or
// config.json names it.
// Nothing, with a warning, when there is neither. Throws FormatError for files that are damaged or
// go beyond what text::Tokenizer knows, and for more pieces than the model has rows. `where` opens
// the messages: a path.
std::optional<text::Tokenizer> ReadHfTokenizer(const ModelFiles& files, const std::string& where,
                                               int64_t model_vocab_size);

// chat_template.jinja, or the one in tokenizer_config.json (of several, "default"). Nothing when
// there is none or, with a warning, when it is outside of the subset.
std::optional<text::ChatTemplate> ReadHfChatTemplate(const ModelFiles& files,
                                                     const std::string& where);

// The text of "bos_token" or "eos_token" in tokenizer_config.json's bytes; empty: none. Throws
// FormatError.
std::string SpecialTokenText(const std::string& config_json, const char* key);

// Reads a template that a model file brings: one that is outside of the subset must not keep the
// model from running, so it is a warning and nothing.
std::optional<text::ChatTemplate> ParseChatTemplate(std::string source, std::string bos_token,
                                                    std::string eos_token, const std::string& name);

}  // namespace tern::engine
