// SentencePiece's model file (a protobuf message) read and written without a protobuf library: only
// the fields that a BPE or unigram tokenizer without a normalization table needs. Field numbers are
// those of sentencepiece_model.proto.
#pragma once

#include <string>
#include <string_view>

#include "text/tokenizer.h"

namespace tern::text {

// The canonical encoding: the same table gives the same bytes.
std::string EncodeModelProto(const PieceTable& table);

// Throws FormatError with `name` when the bytes are no model file, or the model has normalization
// rules of its own.
PieceTable DecodeModelProto(std::string_view bytes, const std::string& name);

}  // namespace tern::text
