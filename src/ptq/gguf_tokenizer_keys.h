// The tokenizer of a model for a GGUF file.
#pragma once

#include "formats/gguf.h"
#include "ptq/float_model.h"

namespace tern::ptq {

// Of a source that is GGUF, its own keys, whatever kind of tokenizer they describe, and the chat
// template; of others, those of a SentencePiece tokenizer. Throws RecipeError for a BPE tokenizer
// of another source.
void AddTokenizerKeys(const FloatModel& model, formats::GgufWriter* writer);

}  // namespace tern::ptq
