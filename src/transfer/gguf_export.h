// Writes a decoder as GGUF; see export.h.
#pragma once

#include <cstdint>
#include <string>

#include "formats/gguf.h"
#include "transfer/export.h"

namespace tern::transfer {

void WriteGguf(const model::Decoder& decoder, const ExportText& text, const ExportOptions& options,
               const std::string& path);

// Parts of such a file, for other writers. Keys of the model; `file_type`: llama.cpp's number for
// the type that most weights have (llama_ftype).
void AddGgufModelKeys(const ModelConfig& config, const std::string& name, uint32_t file_type,
                      formats::GgufWriter* writer);
// REQUIRES: a tokenizer. `rows`: of the embedding. Throws RecipeError for one that GGUF cannot say.
void AddGgufTokenizer(const ExportText& text, int64_t rows, formats::GgufWriter* writer);
// Llama 3.1's scaling, and any other that is a factor for each pair, is a tensor in GGUF.
void AddGgufRopeFactors(const ModelConfig& config, formats::GgufWriter* writer);

}  // namespace tern::transfer
