// What the two families of Tokenizer share.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/bpe_definition.h"
#include "text/tokenizer.h"

namespace tern::text {

struct Tokenizer::Impl {
  virtual ~Impl() = default;
  // Throws InputError when `text` is not UTF-8. `special`: special tokens spelled in the text are
  // tokens in any case.
  virtual void Encode(std::string_view text, bool special, std::vector<int32_t>* ids) const = 0;
  // Writes the model file that was not there yet.
  virtual std::string Serialize() const { return serialized; }

  virtual GgufBpe ToGguf() const { TERN_CHECK(false, "no byte-level BPE"); }

  PieceTable table;
  std::vector<std::string> bytes;  // Of each id
  bool strip_first_space = false;  // Decoding drops a space at the very begin
  bool byte_fallback = false;
  mutable std::mutex mutex;  // Guards the two below
  mutable std::string serialized, sha256;
};

std::unique_ptr<Tokenizer::Impl> MakeSentencePiece(std::string model, const std::string& name);
// `serialized`: the tokenizer.json that the definition comes from; empty: written when asked for.
std::unique_ptr<Tokenizer::Impl> MakeBpe(BpeDefinition definition, std::string serialized);

}  // namespace tern::text
