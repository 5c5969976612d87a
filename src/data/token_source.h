// What training and evaluation read: one stream of token ids a split, whatever holds it (token
// file, shards, Megatron and llm.c files, or a mixture of these). All are read-only and
// thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace tern::data {

enum class Split { kTrain, kValidation };
inline constexpr Split kSplits[] = {Split::kTrain, Split::kValidation};
const char* SplitName(Split split);  // "train", "validation"
// Throws UsageError for another name.
Split SplitFromName(const std::string& name);

// A range of a split that is sampled for itself.
struct TokenPart {
  std::string name;
  double weight = 1;  // Share of the samples, relative to the other parts'
  int64_t begin = 0;  // First token in the split
  int64_t tokens = 0;
  bool aligned = false;  // Windows begin at multiples of their length (packed_samples.h)
};

class TokenSource {
 public:
  virtual ~TokenSource() = default;

  virtual int64_t NumTokens(Split split) const = 0;
  // Copies tokens [begin, begin + count) of the split. REQUIRES: in range. Throws FormatError for
  // an id outside of the vocabulary, when that was not checked before.
  virtual void Copy(Split split, int64_t begin, int64_t count, int32_t* out) const = 0;
  // Whether tokens [begin, begin + count) count as targets: 1, or 0 (prompts, padding). Here: all
  // do. REQUIRES: in range.
  virtual void CopyLabels(Split split, int64_t begin, int64_t count, uint8_t* out) const;
  // First tokens of the documents that begin in [begin, end), ascending.
  virtual std::vector<int64_t> DocumentsIn(Split split, int64_t begin, int64_t end) const = 0;
  // Bytes of text behind the split, for bits per byte; 0 when unknown.
  virtual int64_t TextBytes(Split split) const = 0;
  // What training samples from, in the order of the stream; they cover it. One part, unless this
  // is a mixture.
  virtual std::vector<TokenPart> Parts(Split split) const;
};

// Several sources as one, one after the other, documents and all. Finding a token is O(log
// sources). `weights` (empty: one part in all) makes each source a part of its own under its name
// in `names`.
std::unique_ptr<TokenSource> JoinSources(std::vector<std::unique_ptr<TokenSource>> sources,
                                         std::vector<std::string> names = {},
                                         std::vector<double> weights = {});

}  // namespace tern::data
