// `*.tokens.h5`: the tokens of a corpus, ready to train on (docs/formats/tokens.md). Every document
// is BOS, its tokens, EOS. The file names the tokenizer it belongs to by hash and is refused with
// another. Written beside and renamed: at any moment the name is an old file or a whole new one. A
// reader holds all tokens in memory (2 or 4 bytes each) and is thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/corpus.h"
#include "data/token_source.h"
#include "text/tokenizer.h"

namespace tern::data {

inline constexpr int64_t kTokenFileVersion = 1;

struct TokenFileOptions {
  std::string recipe;  // YAML text that made it; kept as it is
  int64_t seed = 0;
};

// BOS, the tokens of `text`, EOS; a tokenizer that lacks one of the two leaves it out (GPT-2 and
// Qwen have no BOS). Throws InputError when it lacks both.
std::vector<int32_t> DocumentTokens(const std::string& text, const text::Tokenizer& tokenizer);

// Encodes and writes a corpus. Throws ResourceError when it cannot be written (nothing is left
// behind), InputError as DocumentTokens.
void WriteTokenFile(const std::string& path, const Corpus& corpus, const text::Tokenizer& tokenizer,
                    const TokenFileOptions& options);

class TokenFile : public TokenSource {
 public:
  // Throws FormatError when the file is damaged, of another version, or internally inconsistent (an
  // id >= vocab_size, document offsets that do not cover the tokens); the message names the
  // dataset.
  static TokenFile Open(const std::string& path);
  // As Open, and refuses a file that belongs to another tokenizer; the message names both hashes.
  static TokenFile Open(const std::string& path, const text::Tokenizer& tokenizer);
  // For tests and synthetic data: documents of the two splits as they are.
  static TokenFile FromTokens(const std::vector<std::vector<int32_t>>& train,
                              const std::vector<std::vector<int32_t>>& validation,
                              int64_t vocab_size);

  TokenFile(TokenFile&&) noexcept;
  TokenFile& operator=(TokenFile&&) noexcept;
  ~TokenFile() override;

  int64_t NumTokens(Split split) const override;
  void Copy(Split split, int64_t begin, int64_t count, int32_t* out) const override;
  std::vector<int64_t> DocumentsIn(Split split, int64_t begin, int64_t end) const override;
  // First token of each document, ascending, starting with 0; empty when the split is.
  const std::vector<int64_t>& Documents(Split split) const;
  int64_t TextBytes(Split split) const override;  // 0 of FromTokens

  int64_t vocab_size() const;
  const std::string& tokenizer_sha256() const;
  const std::vector<Source>& sources() const;
  const std::string& recipe() const;
  int64_t seed() const;
  const std::string& path() const;

 private:
  struct Impl;
  explicit TokenFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tern::data
