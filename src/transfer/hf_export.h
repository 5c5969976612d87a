// Writes a decoder as a Hugging Face folder: config.json, generation_config.json,
// model.safetensors, tokenizer files; see export.h and docs/formats/hf_bitnet.md.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "transfer/export.h"

namespace tern::transfer {

// Into the existing folder `path`.
void WriteHfFolder(const model::Decoder& decoder, const ExportText& text,
                   const ExportOptions& options, const std::string& path);

// config.json of a model whose floats are of `dtype` ("bfloat16"), without quantization_config.
// Throws RecipeError for a shape that no architecture has.
nlohmann::json HfConfigJson(const ModelConfig& config, const std::string& dtype);

// The small files that go along with a model, by name: those of `text` but its config.json,
// generation_config.json and, where they are missing, the tokenizer's.
std::map<std::string, std::string> CompanionFiles(const ExportText& text, int64_t context_length);

// Everything of a folder but its tensors: config.json (`config_json` and the tokenizer's ids) and
// CompanionFiles.
void WriteHfCompanions(nlohmann::json config_json, int64_t context_length, const ExportText& text,
                       const std::string& path);

// tokenizer.json of a SentencePiece BPE tokenizer, as the tokenizers library reads it.
std::string TokenizerJson(const text::Tokenizer& tokenizer);

}  // namespace tern::transfer
