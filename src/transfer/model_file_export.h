// Writes a decoder as tern's model file (engine/model_file.h), which holds every architecture that
// the trainer has: ternary matrices as codes and scale, other matrices and norms in fp32.
#pragma once

#include <string>

#include "transfer/export.h"

namespace tern::transfer {

// Throws as engine::WriteModelFile.
void WriteDecoder(const model::Decoder& decoder, const ExportText& text,
                  const ExportOptions& options, const std::string& path);

}  // namespace tern::transfer
