// Which tokens end a text. A chat model has more of them than the tokenizer's EOS: its turns end
// with <|im_end|>, <|eot_id|> and the like, and the base model's EOS stays one.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/hf_tokenizer.h"
#include "formats/gguf.h"

namespace tern::engine {

// Of a Hugging Face folder: EOS, and "eos_token_id" (a number or a list) of generation_config.json,
// or, when that does not say, of config.json: transformers' rule. In rising order. Ids without a
// token, which some configs have by default, are left out. Throws FormatError for what is neither a
// number nor a list of them.
std::vector<int32_t> ReadHfStopTokens(const ModelFiles& files, const std::string& where,
                                      const text::Tokenizer& tokenizer);

// Of a GGUF file: tokenizer.ggml.eos_token_id, eot_token_id, eom_token_id, and special tokens that
// are known by name to end a turn (llama.cpp's rule). In rising order.
std::vector<int32_t> ReadGgufStopTokens(const formats::GgufReader& file,
                                        const text::Tokenizer& tokenizer);

}  // namespace tern::engine
