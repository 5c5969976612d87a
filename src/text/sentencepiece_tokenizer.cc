// The SentencePiece half of Tokenizer. The library cuts text into pieces; bytes, U+2581 and
// decoding are handled here, so that every text comes back as it was.
#include <sentencepiece_processor.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <unordered_set>

#include "base/error.h"
#include "base/sha256.h"
#include "base/utf8.h"
#include "text/bpe_definition.h"
#include "text/model_proto.h"
#include "text/pipeline.h"
#include "text/tokenizer_impl.h"

namespace tern::text {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581, how SentencePiece writes a space
constexpr std::string_view kUnknownText = " \xE2\x81\x87 ";

std::string WithSpaces(std::string_view piece) {
  std::string text;
  for (size_t at = 0; at < piece.size();) {
    if (piece.substr(at).starts_with(kSpaceMark)) {
      text += ' ';
      at += kSpaceMark.size();
    } else {
      text += piece[at++];
    }
  }
  return text;
}

void CheckTable(const PieceTable& table, const std::string& name) {
  const size_t size = table.pieces.size();
  TERN_CHECK_FORMAT(size > 0 && table.types.size() == size && table.scores.size() == size, name,
                    ": ", size, " pieces, ", table.scores.size(), " scores and ",
                    table.types.size(), " types; want as many of each");
  std::unordered_set<std::string_view> seen;
  int64_t byte_pieces = 0;
  for (size_t i = 0; i < size; ++i) {
    TERN_CHECK_FORMAT(!table.pieces[i].empty(), name, ": piece ", i, " is empty");
    TERN_CHECK_FORMAT(std::isfinite(table.scores[i]), name, ": the score of piece ", i, " is ",
                      table.scores[i], "; want a number");
    TERN_CHECK_FORMAT(seen.insert(table.pieces[i]).second, name, ": piece ", i, " (",
                      table.pieces[i], ") is there twice");
    const int32_t type = static_cast<int32_t>(table.types[i]);
    TERN_CHECK_FORMAT(type >= 1 && type <= 6, name, ": piece ", i, " has the type ", type,
                      "; want 1 to 6");
    if (table.types[i] != PieceType::kByte) continue;
    TERN_CHECK_FORMAT(ByteOfPiece(table.pieces[i]) >= 0, name, ": byte piece ", i, " is ",
                      table.pieces[i]);
    ++byte_pieces;
  }
  TERN_CHECK_FORMAT(byte_pieces == 0 || byte_pieces == 256, name, ": ", byte_pieces,
                    " byte pieces; want 0 or 256");
  for (const int32_t id : {table.unk_id, table.bos_id, table.eos_id}) {
    TERN_CHECK_FORMAT(id >= -1 && id < static_cast<int64_t>(size), name, ": special id ", id,
                      " of ", size, " pieces");
  }
}

class SentencePieceTokenizer : public Tokenizer::Impl {
 public:
  SentencePieceTokenizer(std::string model, const std::string& name);
  void Encode(std::string_view text, bool special, std::vector<int32_t>* ids) const override;

 private:
  void FillBytes();
  void EncodePlain(std::string_view text, std::vector<int32_t>* ids) const;
  void EncodePart(std::string_view text, std::vector<int32_t>* ids) const;
  void AppendBytes(std::string_view text, std::vector<int32_t>* ids) const {
    for (const char c : text) ids->push_back(byte_ids_[static_cast<unsigned char>(c)]);
  }

  sentencepiece::SentencePieceProcessor processor_;
  std::array<int32_t, 256> byte_ids_{};  // -1: no byte fallback
  bool lossless_ = false;                // Byte fallback, spaces kept as they are: what we train
  std::unique_ptr<AddedTokenMatcher> control_;
};

SentencePieceTokenizer::SentencePieceTokenizer(std::string model, const std::string& name) {
  table = DecodeModelProto(model, name);
  CheckTable(table, name);
  const auto status = processor_.LoadFromSerializedProto({model.data(), model.size()});
  TERN_CHECK_FORMAT(status.ok(), name, " is not a SentencePiece model: ", status.ToString());
  serialized = std::move(model);
  FillBytes();
  strip_first_space = table.add_space_prefix;
  byte_fallback = byte_ids_[0] >= 0;
  lossless_ = byte_fallback && !table.add_space_prefix && !table.remove_extra_whitespaces;
  for (const std::string& piece : table.pieces) lossless_ &= piece.find('\n') == std::string::npos;
  std::vector<AddedToken> tokens;
  for (size_t id = 0; id < table.pieces.size(); ++id) {
    if (table.types[id] != PieceType::kControl && table.types[id] != PieceType::kUserDefined)
      continue;
    AddedToken& token = tokens.emplace_back();
    token.id = static_cast<int32_t>(id);
    token.content = table.pieces[id];
  }
  control_ = std::make_unique<AddedTokenMatcher>(std::move(tokens));
}

void SentencePieceTokenizer::FillBytes() {
  byte_ids_.fill(-1);
  for (size_t id = 0; id < table.pieces.size(); ++id) {
    switch (table.types[id]) {
      case PieceType::kByte: {
        const int byte = ByteOfPiece(table.pieces[id]);
        byte_ids_[static_cast<size_t>(byte)] = static_cast<int32_t>(id);
        bytes.emplace_back(1, static_cast<char>(byte));
        break;
      }
      case PieceType::kControl:
        bytes.emplace_back();
        break;
      case PieceType::kUnknown:
        bytes.emplace_back(kUnknownText);
        break;
      default:
        bytes.push_back(WithSpaces(table.pieces[id]));
    }
  }
}

void SentencePieceTokenizer::EncodePart(std::string_view text, std::vector<int32_t>* ids) const {
  if (text.empty()) return;
  std::vector<int> part;
  const auto status = processor_.Encode({text.data(), text.size()}, &part);
  TERN_CHECK(status.ok(), status.ToString());
  ids->insert(ids->end(), part.begin(), part.end());
}

void SentencePieceTokenizer::Encode(std::string_view text, bool special,
                                    std::vector<int32_t>* ids) const {
  CheckText(text, "text");
  if (!special) return EncodePlain(text, ids);
  Regex::Workspace workspace;
  for (const AddedTokenMatcher::Part& part : control_->Cut(text, &workspace)) {
    if (part.id >= 0) {
      ids->push_back(part.id);
    } else {
      EncodePlain(text.substr(part.begin, part.end - part.begin), ids);
    }
  }
}

void SentencePieceTokenizer::EncodePlain(std::string_view text, std::vector<int32_t>* ids) const {
  if (!lossless_) return EncodePart(text, ids);
  // Line ends are byte tokens and U+2581 would come back as a space: both are cut out and written
  // as bytes.
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t cut = text[at] == '\n'                          ? 1
                       : text.substr(at).starts_with(kSpaceMark) ? kSpaceMark.size()
                                                                 : 0;
    if (cut == 0) {
      ++at;
      continue;
    }
    EncodePart(text.substr(begin, at - begin), ids);
    AppendBytes(text.substr(at, cut), ids);
    at += cut;
    begin = at;
  }
  EncodePart(text.substr(begin), ids);
}

}  // namespace

std::unique_ptr<Tokenizer::Impl> MakeSentencePiece(std::string model, const std::string& name) {
  return std::make_unique<SentencePieceTokenizer>(std::move(model), name);
}

Tokenizer Tokenizer::FromPieces(const PieceTable& table) {
  PieceTable filled = table;
  if (filled.scores.empty()) filled.scores.assign(filled.pieces.size(), 0.0f);
  CheckTable(filled, "tokenizer");
  return FromSerialized(EncodeModelProto(filled), "tokenizer");
}

}  // namespace tern::text
