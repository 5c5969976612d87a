// A BPE tokenizer as its files describe it (tokenizer.json, GGUF's arrays, tiktoken's ranks),
// before anything is built of it. The steps and their names are those of HF tokenizers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace tern::text {

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool single_word = false, lstrip = false, rstrip = false, normalized = false, special = false;
};

struct NormalizerStep {
  enum class Kind { kForm, kPrepend, kReplace, kLowercase, kStrip, kStripAccents };
  Kind kind = Kind::kForm;
  NormalForm form = NormalForm::kNfc;
  std::string content;             // kPrepend, kReplace: what comes there
  std::vector<Regex> pattern;      // kReplace: one
  bool left = true, right = true;  // kStrip
};

// What becomes of the matches of a split.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct PreTokenizerStep {
  enum class Kind { kSplit, kSpacePrefix, kMetaspace };
  Kind kind = Kind::kSplit;
  std::vector<Regex> regex;  // kSplit: one
  std::string pattern;       // Its source, to write it down
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;
  std::string replacement;  // kMetaspace: of a space
  enum class Prepend { kAlways, kFirst, kNever } prepend = Prepend::kAlways;
  bool split = true;  // kMetaspace: before each replacement
};

struct Merge {
  int32_t left = 0, right = 0, result = 0;
};

struct BpeDefinition {
  std::vector<std::string> tokens;  // By id; empty: the id is free
  std::vector<Merge> merges;        // In order of rank
  std::vector<AddedToken> added;
  std::vector<NormalizerStep> normalizers;
  std::vector<PreTokenizerStep> pre_tokenizers;
  bool byte_level = true;  // Tokens are in GPT-2's alphabet of bytes; else plain text
  bool ignore_merges = false, byte_fallback = false, fuse_unk = false;
  int32_t unk_id = -1;
  std::vector<int32_t> prefix, suffix;  // What a text begins and ends with
  // Decoding: text that stands for a space, and whether a space at the very begin goes.
  std::string space_mark;
  bool strip_first_space = false;
  int32_t bos_id = -1, eos_id = -1;
};

// GPT-2's alphabet: bytes that print stand for themselves, the others for U+0100 and on.
std::string ByteLevelEncode(std::string_view bytes);
// False when a character is not of the alphabet; REQUIRES: UTF-8.
bool ByteLevelDecode(std::string_view text, std::string* bytes);
// The byte of "<0x0A>", or -1.
int ByteOfPiece(std::string_view piece);

// A step that cuts with the pattern, matches apart.
PreTokenizerStep IsolatedSplit(const std::string& pattern, RegexDialect dialect);
// \w of Rust's regular expressions, which has other members than Oniguruma's.
inline constexpr const char* kRustWord = R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}])";
// GPT-2's pattern.
extern const char* const kGpt2Pattern;

// GGUF's tokenizer.ggml.pre as steps (and normalizers). False for an unknown name.
bool FillPreTokenizer(std::string_view name, BpeDefinition* definition);

// What a definition is in GGUF. Throws RecipeError with the reason when GGUF has no way to say it:
// the pre-tokenizer has no name there, or an added token has rules of its own.
GgufBpe GgufOf(const BpeDefinition& definition);

// tokenizer.json. `name` is for messages. Throws FormatError for what is malformed, inconsistent or
// not supported.
BpeDefinition ParseTokenizerJson(std::string_view json, const std::string& name);
// The definition as tokenizer.json. REQUIRES: byte_level, splits with fancy-regex patterns.
std::string WriteTokenizerJson(const BpeDefinition& definition);

}  // namespace tern::text
