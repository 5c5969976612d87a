// Writes a decoder as GGUF; see export.h.
#pragma once

#include <string>

#include "transfer/export.h"

namespace tern::transfer {

void WriteGguf(const model::Decoder& decoder, const ExportText& text, const ExportOptions& options,
               const std::string& path);

}  // namespace tern::transfer
