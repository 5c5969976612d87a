// Writes a decoder as GGUF; see export.h.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "formats/gguf.h"
#include "quant/weight_quantizer.h"
#include "transfer/export.h"

namespace tern::transfer {

// Matrices that lie in the file as these codes and scales, by parameter name.
using LinearCodes = std::map<std::string, quant::QuantizedWeight>;
// Q4_0 and Q8_0 hold quant::GgufFormat of 4 and 8 bits; nothing: no type holds the format.
std::optional<formats::GgmlType> GgufTypeOf(const quant::WeightFormat& format);

// What embedding and head are stored as; `ternary`: the linear layers are.
formats::GgmlType TableType(const ExportOptions& options, bool ternary);

// codes: of options.format gguf/quantized; matrices without some are F32. REQUIRES: GgufTypeOf
// each.
void WriteGguf(const model::Decoder& decoder, const ExportText& text, const ExportOptions& options,
               const std::string& path, const LinearCodes& codes = {});

// Parts of such a file, for other writers. Keys of the model; `file_type`: llama.cpp's number for
// the type that most weights have (llama_ftype).
void AddGgufModelKeys(const ModelConfig& config, const std::string& name, uint32_t file_type,
                      formats::GgufWriter* writer);
// REQUIRES: a tokenizer. `rows`: of the embedding. Throws RecipeError for one that GGUF cannot say.
void AddGgufTokenizer(const ExportText& text, int64_t rows, formats::GgufWriter* writer);
// Llama 3.1's scaling, and any other that is a factor for each pair, is a tensor in GGUF.
void AddGgufRopeFactors(const ModelConfig& config, formats::GgufWriter* writer);

}  // namespace tern::transfer
