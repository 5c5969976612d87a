// Whole documents in samples of a fixed length, for data whose documents mean little in halves
// (instructions): sample s is tokens [s T, (s + 1) T). Documents go by falling length into the
// sample with the least room that still holds them (best fit decreasing; ties by order), a pure
// function of their lengths. One longer than T loses its end. What stays free is a document of
// padding that counts nowhere. Read with Packing::kDocuments, so that neither attention nor
// positions nor targets cross a border. Parts of a mixture are packed each for itself.
#pragma once

#include <cstdint>
#include <memory>

#include "data/token_source.h"

namespace tern::data {

struct PackedTotals {
  int64_t documents = 0, samples = 0;
  int64_t cut_documents = 0, cut_tokens = 0;  // Longer than a sample, and what they lost
  int64_t padding = 0;                        // Tokens
};

class PackedSamples : public TokenSource {
 public:
  // `tokens` must live as long as this. Memory: 16 bytes a document.
  PackedSamples(const TokenSource& tokens, int64_t sequence_length);
  ~PackedSamples() override;

  // T a sample, and one more, which is the target of nothing.
  int64_t NumTokens(Split split) const override;
  void Copy(Split split, int64_t begin, int64_t count, int32_t* out) const override;
  void CopyLabels(Split split, int64_t begin, int64_t count, uint8_t* out) const override;
  std::vector<int64_t> DocumentsIn(Split split, int64_t begin, int64_t end) const override;
  int64_t TextBytes(Split) const override { return 0; }
  std::vector<TokenPart> Parts(Split split) const override;
  const PackedTotals& totals(Split split) const;

 private:
  struct Packed;  // Of a split
  const Packed& Of(Split split) const;

  const TokenSource& tokens_;
  const int64_t length_;
  std::unique_ptr<Packed> packed_[2];
};

}  // namespace tern::data
