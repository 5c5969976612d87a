// See tokenizer.h. The families are in sentencepiece_tokenizer.cc and bpe_tokenizer.cc.
#include "text/tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/utf8.h"
#include "text/tokenizer_impl.h"
#include "text/unicode.h"

namespace tern::text {

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::FromFile(const std::string& path) {
  return FromSerialized(ReadFile(path), path);
}

Tokenizer Tokenizer::FromSerialized(std::string bytes, const std::string& name) {
  // A SentencePiece model begins with the tag of its first field, which is no white space or brace.
  const size_t begin = bytes.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos || bytes[begin] != '{')
    return Tokenizer(MakeSentencePiece(std::move(bytes), name));
  BpeDefinition definition = ParseTokenizerJson(bytes, name);
  return Tokenizer(MakeBpe(std::move(definition), std::move(bytes)));
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text) const {
  std::vector<int32_t> ids;
  impl_->Encode(text, /*special=*/false, &ids);
  return ids;
}

std::vector<int32_t> Tokenizer::EncodeWithSpecial(std::string_view text) const {
  std::vector<int32_t> ids;
  impl_->Encode(text, /*special=*/true, &ids);
  return ids;
}

std::vector<std::vector<int32_t>> Tokenizer::EncodeBatch(const std::vector<std::string_view>& texts,
                                                         const ParallelFor& parallel) const {
  // Texts differ in length, and ranges are cut by count: each range takes every n-th text, so that
  // long ones at one end do not all fall to one thread.
  std::vector<std::vector<int32_t>> ids(texts.size());
  constexpr int64_t kStrides = 64;
  const auto count = static_cast<int64_t>(texts.size());
  parallel(std::min(kStrides, count), 1, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; ++first)
      for (int64_t i = first; i < count; i += kStrides)
        ids[static_cast<size_t>(i)] = Encode(texts[static_cast<size_t>(i)]);
  });
  return ids;
}

std::string Tokenizer::Decode(const std::vector<int32_t>& ids) const {
  std::string text;
  for (const int32_t id : ids) {
    TERN_CHECK_INPUT(id >= 0 && id < vocab_size(), "token id ", id, " is outside of 0 to ",
                     vocab_size() - 1);
    text += BytesOf(id);
  }
  if (impl_->strip_first_space && text.starts_with(' ')) text.erase(0, 1);
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
GgufBpe Tokenizer::ToGgufBpe() const { return impl_->ToGguf(); }
const PieceTable& Tokenizer::table() const { return impl_->table; }
bool Tokenizer::has_byte_fallback() const { return impl_->byte_fallback; }
const std::string& Tokenizer::serialized() const {
  const std::lock_guard lock(impl_->mutex);
  if (impl_->serialized.empty()) impl_->serialized = impl_->Serialize();
  return impl_->serialized;
}
const std::string& Tokenizer::sha256() const {
  const std::string& model = serialized();
  const std::lock_guard lock(impl_->mutex);
  if (impl_->sha256.empty()) impl_->sha256 = Sha256Hex(model);
  return impl_->sha256;
}
void Tokenizer::Save(const std::string& path) const { WriteFileAtomically(path, serialized()); }

std::optional<int32_t> Tokenizer::IdOf(std::string_view piece) const {
  const auto& pieces = impl_->table.pieces;
  const auto found = std::find(pieces.begin(), pieces.end(), piece);
  if (piece.empty() || found == pieces.end()) return std::nullopt;
  return static_cast<int32_t>(found - pieces.begin());
}

void Tokenizer::SetEos(int32_t id) {
  TERN_CHECK_FORMAT(id >= -1 && id < vocab_size(), "the EOS id ", id, " is outside of ",
                    vocab_size(), " pieces");
  impl_->table.eos_id = id;
}

std::string StreamDecoder::Push(int32_t id) {
  TERN_CHECK_INPUT(id >= 0 && id < tokenizer_.vocab_size(), "token id ", id,
                   " is outside of the vocabulary");
  std::string_view bytes = tokenizer_.BytesOf(id);
  if (at_start_ && tokenizer_.impl_->strip_first_space && bytes.starts_with(' '))
    bytes.remove_prefix(1);
  at_start_ = at_start_ && tokenizer_.BytesOf(id).empty();
  pending_ += bytes;
  // More bytes may complete what is unfinished at the end.
  const size_t whole = pending_.size() - static_cast<size_t>(IncompleteTail(pending_));
  std::string out = ReplaceInvalidUtf8(std::string_view(pending_).substr(0, whole));
  pending_.erase(0, whole);
  return out;
}

std::string StreamDecoder::Finish() {
  const std::string rest = ReplaceInvalidUtf8(pending_);
  pending_.clear();
  at_start_ = true;
  return rest;
}

}  // namespace tern::text
