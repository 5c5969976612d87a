// The keys of a GGUF file that say which decoder it is. A key that would make another model of it
// and is not run here is refused by its name, also one that this version has never heard of.
#pragma once

#include "arch/model_config.h"
#include "formats/gguf.h"

namespace tern::engine {

// `linear` comes from the types of the tensors. A sliding window shorter than the context shortens
// the context, in which it changes nothing, and a message says so. The factors of the tensor
// rope_freqs.weight are not in it. Throws FormatError (file, key,
// found, wanted). REQUIRES: `arch` is the one of the file.
ModelConfig ReadGgufConfig(const formats::GgufReader& file, ArchName arch, LinearKind linear);

}  // namespace tern::engine
