// The keys of a GGUF file that say which decoder it is. A key that would make another model of it
// and is not run here is refused by its name, also one that this version has never heard of.
#pragma once

#include "engine/model_weights.h"
#include "formats/gguf.h"

namespace tern::engine {

struct GgufConfig {
  ModelConfig config;
  DecoderExtras extras;  // Without the factors of the tensor rope_freqs.weight
};

// `linear` comes from the types of the tensors. A sliding window shorter than the context shortens
// the context, in which it changes nothing, and a message says so. Throws FormatError (file, key,
// found, wanted). REQUIRES: `arch` is the one of the file.
GgufConfig ReadGgufConfig(const formats::GgufReader& file, ArchName arch, LinearKind linear);

}  // namespace tern::engine
