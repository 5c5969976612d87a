// tern's own model file, model.h5 (docs/formats/model_file.md): what `tern import` makes of a GGUF
// file or a Hugging Face folder. One HDF5 file with the config, the tensors under their Hugging
// Face names with the bits that the source has (16-bit floats, blocks, packed integers; ternary
// codes as T2), the tokenizer's files and the chat template. Every tensor lies in one piece, so it
// is mapped, and carries the SHA-256 of its bytes, which every reader checks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/model_source.h"

namespace tern::engine {

struct ModelFileReport {
  int64_t tensors = 0;
  int64_t size_bytes = 0;  // Of the file
};

// Copies the model into `path`, which gets its name when it is whole and synced. Memory: a few tens
// of MB beside the pages of the source, which are given back. Throws ResourceError (disk full), and
// what the source throws; then nothing of it stays. `progress`: tensors done, optional.
ModelFileReport WriteModelFile(ModelSource& source, const std::string& path,
                               const std::function<void(int64_t done, int64_t all)>& progress = {});

// Throws FormatError (file, object, found, wanted): no model file, another version, damage.
std::unique_ptr<ModelSource> OpenModelFile(const std::string& path);

// True when the file begins as HDF5 does. Throws InputError when it cannot be read.
bool IsHdf5(const std::string& path);

}  // namespace tern::engine
