// The tokenizer inside a GGUF file.
#pragma once

#include <cstdint>
#include <optional>

#include "formats/gguf.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace tern::engine {

// SentencePiece ("llama") and byte-level BPE ("gpt2"). Nothing when the file has none, or, with a
// warning, one of another kind or with a pre-tokenizer that is not known. Throws FormatError (file, key, found, wanted) for
// keys that are missing or of another type, lengths that differ, numbers out of range, and more
// pieces than the model has rows.
std::optional<text::Tokenizer> ReadGgufTokenizer(const formats::GgufReader& file,
                                                 int64_t model_vocab_size);

// The key tokenizer.chat_template. Nothing when it is not there or, with a warning, outside of the
// subset of text::ChatTemplate.
std::optional<text::ChatTemplate> ReadGgufChatTemplate(const formats::GgufReader& file);

}  // namespace tern::engine
