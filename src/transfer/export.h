// Decoder -> files that engines load: GGUF (TQ2_0, TQ1_0, I2_S, F16, BF16, F32), Hugging Face
// folders (bitnet, autobitnet, bf16, f16, f32) and tern's model file. The codes and the scale of
// every BitLinear are those of the trainer's forward, computed by the same kernel from the same
// latents; the scale is stored in fp32. A file gets its final name only after it has been read
// again by the engine's reader and compared weight by weight (verify.h).
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "model/decoder.h"
#include "text/tokenizer.h"

namespace tern::transfer {

struct ExportOptions {
  std::string format;  // One that WhyFormatCannotHold allows (arch/model_config.h)
  // GGUF and the model file: type of embedding and head: f16 | bf16 | f32 | q8_0; empty: that of
  // the other matrices, f16 beside ternary and quantized ones.
  std::string embedding;
  std::string name = "model";  // general.name, and part of file names
};

// What an export of `format` is called below its folder: "<name>-tq2_0.gguf", "<name>-hf-bitnet",
// "<name>.h5".
std::string ExportName(const std::string& name, std::string_view format);

// What goes along with a model.
struct ExportText {
  const text::Tokenizer* tokenizer = nullptr;  // Null: the file has none, and a message says so
  // Files of a Hugging Face folder to be written as they are (engine::ModelSource::Files); where
  // there is none, the tokenizer's are made.
  std::map<std::string, std::string> files;
};

// Writes `path` (a file, or a folder for hf/...). Throws RecipeError when the format cannot hold
// the model (none holds quantized or rotated inputs), NumericError when the file read again
// differs, ResourceError when it cannot be written.
void Export(const model::Decoder& decoder, const ExportText& text, const ExportOptions& options,
            const std::string& path);

// The end of every export: lets `write` write beside `path`, reads that again, compares it with the
// decoder and puts it in place. Throws as Export.
void PutInPlace(const std::function<void(const std::string& path)>& write,
                const model::Decoder& decoder, const ExportText& text, const std::string& format,
                const std::string& path);

}  // namespace tern::transfer
