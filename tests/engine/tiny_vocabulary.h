// The smallest useful vocabulary: control pieces, the 256 bytes, and a few letters, so that most
// characters are made of several tokens.
#pragma once

#include <cstdio>
#include <string>

#include "text/tokenizer.h"

namespace tern::testing {

inline constexpr int64_t kFirstByteId = 3;

inline int64_t ByteId(char byte) { return kFirstByteId + static_cast<unsigned char>(byte); }

inline text::PieceTable ByteVocabulary() {
  text::PieceTable table;
  const auto add = [&](const std::string& piece, text::PieceType type) {
    table.pieces.push_back(piece);
    table.types.push_back(type);
    table.scores.push_back(0.0f);
  };
  add("<unk>", text::PieceType::kUnknown);
  add("<s>", text::PieceType::kControl);
  add("</s>", text::PieceType::kControl);
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    add(name, text::PieceType::kByte);
  }
  for (const char* letter : {"\u2581", "T", "o", "b", "e", "\u00e9"})
    add(letter, text::PieceType::kNormal);
  return table;
}

}  // namespace tern::testing
