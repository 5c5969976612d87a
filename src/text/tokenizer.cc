// See tokenizer.h. The sentencepiece library cuts text into pieces; bytes, U+2581 and decoding are
// handled here, so that every text comes back as it was.
#include "text/tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <unordered_set>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/utf8.h"
#include "text/model_proto.h"

namespace tern::text {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581, how SentencePiece writes a space
constexpr std::string_view kUnknownText = " \xE2\x81\x87 ";

// The byte of "<0x0A>", or -1.
int ByteOf(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  int value = -1;
  const auto result = std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
  return result.ptr == piece.data() + 5 ? value : -1;
}

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
    TERN_CHECK_FORMAT(seen.insert(table.pieces[i]).second, name, ": piece ", i, " (",
                      table.pieces[i], ") is there twice");
    const int32_t type = static_cast<int32_t>(table.types[i]);
    TERN_CHECK_FORMAT(type >= 1 && type <= 6, name, ": piece ", i, " has the type ", type,
                      "; want 1 to 6");
    if (table.types[i] != PieceType::kByte) continue;
    TERN_CHECK_FORMAT(ByteOf(table.pieces[i]) >= 0, name, ": byte piece ", i, " is ",
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

}  // namespace

struct Tokenizer::Impl {
  PieceTable table;
  std::string serialized, sha256;
  sentencepiece::SentencePieceProcessor processor;
  std::vector<std::string> bytes;       // Of each id
  std::array<int32_t, 256> byte_ids{};  // -1: no byte fallback
  bool lossless = false;                // Byte fallback, spaces kept as they are: what we train

  void AppendBytes(std::string_view text, std::vector<int32_t>* ids) const {
    for (const char c : text) ids->push_back(byte_ids[static_cast<unsigned char>(c)]);
  }
  void EncodePart(std::string_view text, std::vector<int32_t>* ids) const {
    if (text.empty()) return;
    std::vector<int> part;
    const auto status = processor.Encode({text.data(), text.size()}, &part);
    TERN_CHECK(status.ok(), status.ToString());
    ids->insert(ids->end(), part.begin(), part.end());
  }
};

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::FromFile(const std::string& path) {
  return FromSerialized(ReadFile(path), path);
}

Tokenizer Tokenizer::FromSerialized(std::string bytes, const std::string& name) {
  auto impl = std::make_unique<Impl>();
  impl->table = DecodeModelProto(bytes, name);
  CheckTable(impl->table, name);
  const auto status = impl->processor.LoadFromSerializedProto({bytes.data(), bytes.size()});
  TERN_CHECK_FORMAT(status.ok(), name, " is not a SentencePiece model: ", status.ToString());
  impl->sha256 = Sha256Hex(bytes);
  impl->serialized = std::move(bytes);
  impl->byte_ids.fill(-1);
  const PieceTable& table = impl->table;
  for (size_t id = 0; id < table.pieces.size(); ++id) {
    switch (table.types[id]) {
      case PieceType::kByte: {
        const int byte = ByteOf(table.pieces[id]);
        impl->byte_ids[static_cast<size_t>(byte)] = static_cast<int32_t>(id);
        impl->bytes.emplace_back(1, static_cast<char>(byte));
        break;
      }
      case PieceType::kControl:
        impl->bytes.emplace_back();
        break;
      case PieceType::kUnknown:
        impl->bytes.emplace_back(kUnknownText);
        break;
      default:
        impl->bytes.push_back(WithSpaces(table.pieces[id]));
    }
  }
  impl->lossless =
      impl->byte_ids[0] >= 0 && !table.add_space_prefix && !table.remove_extra_whitespaces;
  for (const std::string& piece : table.pieces)
    impl->lossless &= piece.find('\n') == std::string::npos;
  return Tokenizer(std::move(impl));
}

Tokenizer Tokenizer::FromPieces(const PieceTable& table) {
  PieceTable filled = table;
  if (filled.scores.empty()) filled.scores.assign(filled.pieces.size(), 0.0f);
  CheckTable(filled, "tokenizer");
  return FromSerialized(EncodeModelProto(filled), "tokenizer");
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text) const {
  CheckText(text, "text");
  std::vector<int32_t> ids;
  if (!impl_->lossless) {
    impl_->EncodePart(text, &ids);
    return ids;
  }
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
    impl_->EncodePart(text.substr(begin, at - begin), &ids);
    impl_->AppendBytes(text.substr(at, cut), &ids);
    at += cut;
    begin = at;
  }
  impl_->EncodePart(text.substr(begin), &ids);
  return ids;
}

std::string Tokenizer::Decode(const std::vector<int32_t>& ids) const {
  std::string text;
  for (const int32_t id : ids) {
    TERN_CHECK_INPUT(id >= 0 && id < vocab_size(), "token id ", id, " is outside of 0 to ",
                     vocab_size() - 1);
    text += BytesOf(id);
  }
  if (impl_->table.add_space_prefix && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

const std::string& Tokenizer::BytesOf(int32_t id) const {
  return impl_->bytes.at(static_cast<size_t>(id));
}
int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->table.pieces.size()); }
int32_t Tokenizer::bos_id() const { return impl_->table.bos_id; }
int32_t Tokenizer::eos_id() const { return impl_->table.eos_id; }
int32_t Tokenizer::unk_id() const { return impl_->table.unk_id; }
const std::string& Tokenizer::piece(int32_t id) const {
  return impl_->table.pieces.at(static_cast<size_t>(id));
}
float Tokenizer::score(int32_t id) const { return impl_->table.scores.at(static_cast<size_t>(id)); }
PieceType Tokenizer::type(int32_t id) const {
  return impl_->table.types.at(static_cast<size_t>(id));
}
const PieceTable& Tokenizer::table() const { return impl_->table; }
bool Tokenizer::has_byte_fallback() const { return impl_->byte_ids[0] >= 0; }
const std::string& Tokenizer::serialized() const { return impl_->serialized; }
const std::string& Tokenizer::sha256() const { return impl_->sha256; }
void Tokenizer::Save(const std::string& path) const {
  WriteFileAtomically(path, impl_->serialized);
}

std::string StreamDecoder::Push(int32_t id) {
  TERN_CHECK_INPUT(id >= 0 && id < tokenizer_.vocab_size(), "token id ", id,
                   " is outside of the vocabulary");
  std::string_view bytes = tokenizer_.BytesOf(id);
  if (at_start_ && tokenizer_.table().add_space_prefix && bytes.starts_with(' '))
    bytes.remove_prefix(1);
  at_start_ = at_start_ && tokenizer_.BytesOf(id).empty();
  pending_ += bytes;
  std::string out;
  while (const auto bad = FirstInvalidUtf8(pending_)) {
    const size_t at = static_cast<size_t>(*bad);
    out += pending_.substr(0, at);
    pending_.erase(0, at);
    if (IncompleteTail(pending_) == static_cast<int64_t>(pending_.size()))
      return out;           // More bytes may complete it.
    out += "\xEF\xBF\xBD";  // U+FFFD
    pending_.erase(0, 1);
  }
  out += pending_;
  pending_.clear();
  return out;
}

std::string StreamDecoder::Finish() {
  const std::string rest = pending_.empty() ? "" : "\xEF\xBF\xBD";
  pending_.clear();
  at_start_ = true;
  return rest;
}

}  // namespace tern::text
