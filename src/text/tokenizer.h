// Tokenizers of the SentencePiece family (Kudo and Richardson, arXiv 1808.06226), run by the
// sentencepiece library. A tokenizer that we train loses nothing: Decode(Encode(text)) == text byte
// for byte, for any UTF-8 without NUL (see docs/formats/tokenizer.md for how spaces, line ends and
// U+2581 travel). The vocabulary arrays of a GGUF file give back the same tokenizer, with the same
// bytes and the same hash. Thread-safe once built. Does not know chat templates.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

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

enum class ModelKind : int32_t { kUnigram = 1, kBpe = 2 };  // Numbers of the model file.

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

class Tokenizer {
 public:
  // A SentencePiece model file. Throws InputError when it cannot be read, FormatError when it is
  // not one or has a normalization other than "identity" with rules of its own that this class
  // cannot show in a PieceTable.
  static Tokenizer FromFile(const std::string& path);
  // `name` stands for the source in messages.
  static Tokenizer FromSerialized(std::string bytes, const std::string& name);
  // Throws FormatError with the offending piece when lengths differ, a piece is empty or twice
  // there, an id is out of range, or byte pieces are neither absent nor the 256 of them.
  static Tokenizer FromPieces(const PieceTable& table);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Ids of `text`, without BOS and EOS; control pieces spelled in the text are plain text. Cut at
  // line ends inside, so memory and time are linear in the text. Throws InputError (CheckText) when
  // it is not UTF-8 or holds NUL.
  std::vector<int32_t> Encode(std::string_view text) const;

  // The bytes that `ids` stand for; control pieces give nothing, unknown gives U+2047 between
  // spaces, as SentencePiece does. Throws InputError for an id outside of the vocabulary.
  std::string Decode(const std::vector<int32_t>& ids) const;
  // The bytes of one id in the middle of a text; may be a part of a UTF-8 sequence.
  const std::string& BytesOf(int32_t id) const;

  int32_t vocab_size() const;
  int32_t bos_id() const;  // -1: none
  int32_t eos_id() const;  // -1: none
  int32_t unk_id() const;
  const std::string& piece(int32_t id) const;
  float score(int32_t id) const;
  PieceType type(int32_t id) const;
  const PieceTable& table() const;  // Everything a GGUF writer needs
  bool has_byte_fallback() const;

  // The model file's bytes and their SHA-256 (hex): the identity that token files and checkpoints
  // keep.
  const std::string& serialized() const;
  const std::string& sha256() const;
  // Writes the model file atomically.
  void Save(const std::string& path) const;

 private:
  struct Impl;
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
