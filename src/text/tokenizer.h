// Tokenizers of two families behind one class. SentencePiece (Kudo and Richardson, arXiv
// 1808.06226) is run by its library; what we train is of this kind and loses nothing:
// Decode(Encode(text)) == text byte for byte, for any UTF-8 without NUL
// (docs/formats/tokenizer.md). BPE of tokenizer.json, of GGUF's "gpt2" vocabularies and of
// tiktoken's ranks is run here (bpe_definition.h, pipeline.h, bpe_model.h) and gives the ids of HF
// tokenizers. What is outside of what is read is refused; nothing falls back. Thread-safe once
// built. Chat templates: chat_template.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/parallel.h"

namespace tern::text {

// Numbers of the model file and of GGUF's tokenizer.ggml.token_type: they are the same.
enum class PieceType : int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

// Numbers of SentencePiece's model file, and one beyond them for the other family.
enum class ModelKind : int32_t { kUnigram = 1, kBpe = 2, kJsonBpe = 100 };

// A vocabulary as plain arrays, id = index: what a GGUF file holds.
struct PieceTable {
  std::vector<std::string> pieces;  // A space is U+2581, a byte piece is "<0x0A>"
  std::vector<float> scores;        // BPE: -rank of the merge; empty: all 0
  std::vector<PieceType> types;
  int32_t unk_id = 0;
  int32_t bos_id = 1;                     // -1: none
  int32_t eos_id = 2;                     // -1: none
  bool add_space_prefix = false;          // tokenizer.ggml.add_space_prefix
  bool remove_extra_whitespaces = false;  // tokenizer.ggml.remove_extra_whitespaces
  ModelKind kind = ModelKind::kBpe;
};

// A byte-level BPE as GGUF's arrays have it ("gpt2"), by id; what FromGgufBpe reads.
struct GgufBpe {
  std::string pre;  // tokenizer.ggml.pre
  std::vector<std::string> tokens, merges;
  std::vector<PieceType> types;
};

class Tokenizer {
 public:
  // A SentencePiece model file or a tokenizer.json. Throws InputError when it cannot be read,
  // FormatError when it is neither, has something that this class does not know, or (SentencePiece)
  // a normalization with rules of its own.
  static Tokenizer FromFile(const std::string& path);
  // `name` stands for the source in messages.
  static Tokenizer FromSerialized(std::string bytes, const std::string& name);
  // Throws FormatError with the offending piece when lengths differ, a piece is empty or twice
  // there, an id is out of range, or byte pieces are neither absent nor the 256 of them.
  static Tokenizer FromPieces(const PieceTable& table);
  // GGUF's arrays of a byte-level BPE ("gpt2"): tokens and types by id, merges "a b", the name of
  // the pre-tokenizer. Control and user-defined pieces are added tokens. Throws FormatError for
  // arrays that do not fit together, InputError for a pre-tokenizer that is not known.
  // `adds_bos`: texts begin with bos_id.
  static Tokenizer FromGgufBpe(const PieceTable& table, const std::vector<std::string>& merges,
                               const std::string& pre, bool adds_bos);
  // A tiktoken rank file (lines of base64 and rank) with the pre-tokenizer "cl100k", "o200k" or
  // another name of GGUF, and special tokens. Throws FormatError when it is none.
  static Tokenizer FromTiktoken(std::string_view ranks, const std::string& pre,
                                const std::vector<std::pair<std::string, int32_t>>& special);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Ids of `text`, without BOS and EOS. Throws InputError when it is not UTF-8.
  // SentencePiece: control pieces spelled in the text are plain text; NUL is refused; cut at line
  // ends inside, so memory and time are linear in the text.
  // BPE: added tokens, special ones too, are found in the text, as HF tokenizers does. Bytes that
  // the vocabulary lacks and that have no fallback give no id there, and so here.
  std::vector<int32_t> Encode(std::string_view text) const;
  // Encode for text that a chat template has written: special tokens spelled in it are tokens with
  // SentencePiece, too.
  std::vector<int32_t> EncodeWithSpecial(std::string_view text) const;
  // Encode of each text, shared between threads.
  std::vector<std::vector<int32_t>> EncodeBatch(const std::vector<std::string_view>& texts,
                                                const ParallelFor& parallel) const;

  // The bytes that `ids` stand for; control pieces give nothing, SentencePiece's unknown gives
  // U+2047 between spaces. May be no UTF-8 where ids cut a character: ReplaceInvalidUtf8
  // (unicode.h) and StreamDecoder make U+FFFD of it. Throws InputError for an id outside of the
  // vocabulary.
  std::string Decode(const std::vector<int32_t>& ids) const;
  // The bytes of one id in the middle of a text; may be a part of a UTF-8 sequence.
  const std::string& BytesOf(int32_t id) const;

  int32_t vocab_size() const;
  // What texts begin with; -1: none, though the vocabulary may have a BOS that only templates
  // write.
  int32_t bos_id() const;
  int32_t eos_id() const;  // -1: none
  int32_t unk_id() const;
  // Of the piece as the vocabulary spells it; nothing when it is not there.
  std::optional<int32_t> IdOf(std::string_view piece) const;
  const std::string& piece(int32_t id) const;
  float score(int32_t id) const;
  PieceType type(int32_t id) const;
  const PieceTable& table() const;  // Everything a GGUF writer needs
  bool has_byte_fallback() const;

  // Sets eos_id, which tokenizer.json does not say. Throws FormatError outside of the vocabulary.
  void SetEos(int32_t id);

  // The model file's bytes (SentencePiece's, or a tokenizer.json) and their SHA-256 (hex): the
  // identity that token files and checkpoints keep.
  const std::string& serialized() const;
  const std::string& sha256() const;
  // Throws RecipeError for what GGUF cannot say (bpe_definition.h). REQUIRES: kind kJsonBpe.
  GgufBpe ToGgufBpe() const;
  // Writes the model file atomically.
  void Save(const std::string& path) const;

  struct Impl;  // tokenizer_impl.h

 private:
  friend class StreamDecoder;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Turns ids into text as they come and gives out whole UTF-8 sequences only.
class StreamDecoder {
 public:
  // `tokenizer` must live as long as this.
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  // Text that `id` completes, maybe none. Bytes that can never become UTF-8 come out as U+FFFD.
  std::string Push(int32_t id);
  // What is left: an unfinished sequence comes out as U+FFFD. Ready for a new text afterwards.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;
  bool at_start_ = true;
};

}  // namespace tern::text
