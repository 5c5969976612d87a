// Writes a decoder as a Hugging Face folder: config.json, generation_config.json,
// model.safetensors, tokenizer files; see export.h and docs/formats/hf_bitnet.md.
#pragma once

#include <string>

#include "transfer/export.h"

namespace tern::transfer {

// Into the existing folder `path`.
void WriteHfFolder(const model::Decoder& decoder, const ExportText& text,
                   const ExportOptions& options, const std::string& path);

// tokenizer.json of a SentencePiece BPE tokenizer, as the tokenizers library reads it.
std::string TokenizerJson(const text::Tokenizer& tokenizer);

}  // namespace tern::transfer
