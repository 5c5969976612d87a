// The data of a run that is made of named sources: text that is tokenized into shards, and token
// files that are read in place, as one source whose parts are mixed by weight (mixture.h).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/shards.h"
#include "data/token_source.h"
#include "text/tokenizer.h"

namespace tern::data {

enum class TokenFormat { kShards, kTokens, kMegatron, kLlmc };

struct DatasetSource {
  std::string name;                         // Of its part and of its folder of shards
  std::vector<std::string> files;           // Paths or globs
  std::optional<RecordFormat> text_format;  // At most one of the two; none: by the names
  std::optional<TokenFormat> token_format;
  std::string text_field = "text";
  std::optional<Split> split;  // All of it is on this side; absent: train, and what is held out
  double weight = 1;
  InstructionOptions instruction;  // Instead of text_field, when its kind is not kText
};

struct DatasetOptions {
  std::vector<DatasetSource> sources;
  std::string shards_folder;  // Shards of source "web" are in its folder "web"
  double validation_fraction = 0;
  uint64_t seed = 42;
  int64_t shard_tokens = 100'000'000;
  int threads = 0;
};

// What became of one source, for reports.
struct PreparedSource {
  std::string name, kind;  // "text", "shards", "tokens", "megatron", "llmc"
  ShardTotals totals;      // Of text
};

// Tokenizes what is text (MakeShards), one source after the other. Throws as MakeShards, and
// InputError when the files of a source are of several kinds or of none that is known.
std::vector<PreparedSource> PrepareDataset(const DatasetOptions& options,
                                           const text::Tokenizer& tokenizer);

// REQUIRES: prepared. Throws as the readers of the formats, naming the source.
std::unique_ptr<TokenSource> OpenDataset(const DatasetOptions& options,
                                         const text::Tokenizer& tokenizer);

}  // namespace tern::data
