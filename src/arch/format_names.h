// Names of export formats that more than one module treats in its own way (format_rules.cc has
// all).
#pragma once

#include <string_view>

namespace tern {

// A compressed-tensors folder with the codes and scales that quantize.rules trained.
inline constexpr std::string_view kPackedFormat = "hf/compressed_tensors";
// The same in llama.cpp's blocks: matrices trained as q4_0 and q8_0.
inline constexpr std::string_view kPackedGguf = "gguf/quantized";

// tern's own model file (docs/formats/model_file.md), which holds every architecture.
inline constexpr std::string_view kModelFile = "tern/model";

constexpr bool HoldsTrainedCodes(std::string_view format) {
  return format == kPackedFormat || format == kPackedGguf;
}

}  // namespace tern
