// Names of export formats that more than one module treats in its own way (format_rules.cc has
// all).
#pragma once

#include <string_view>

namespace tern {

// A compressed-tensors folder with the codes and scales that quantize.rules trained.
inline constexpr std::string_view kPackedFormat = "hf/compressed_tensors";

}  // namespace tern
