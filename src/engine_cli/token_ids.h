// Token ids as text: what the verbs logits and tokenizer decode read.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tern::engine_cli {

// Ids separated by white space. Throws InputError with `name` when a word is no whole number that
// int32 holds; whether a vocabulary has the id is for the caller to say.
std::vector<int32_t> ParseTokenIds(std::string_view text, const std::string& name);

}  // namespace tern::engine_cli
