// Trains a byte-fallback BPE tokenizer (Sennrich et al., arXiv 1508.07909) with the sentencepiece
// library. The result is stored in our own canonical encoding (tokenizer.h), so that it depends on
// the text and the size alone: same documents, same bytes. Pieces never hold line ends or tabs
// (those are byte tokens), digits stand alone.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace tern::text {

// 3 control pieces, 256 byte pieces, and at least one letter.
inline constexpr int64_t kMinVocabSize = 260;
inline constexpr int64_t kMaxVocabSize = 1 << 20;

struct TokenizerTraining {
  int64_t vocab_size = 4096;  // Pieces in all: <unk>, <s>, </s>, 256 bytes, the rest learned
  // Share of the text's characters that get a piece, 0.98 to 1; rarer ones use bytes.
  double character_coverage = 0.9995;
};

// Throws InputError when the text is empty, not UTF-8, or supports fewer pieces than asked for
// (says how many), or when an option is out of range or vocab_size too small for the text's
// characters (says what they need).
Tokenizer TrainTokenizer(const std::vector<std::string_view>& documents,
                         const TokenizerTraining& options);

}  // namespace tern::text
