// Text of any size as shards: a folder of Megatron files (mapped_tokens.h) and a manifest
// (docs/formats/shards.md). Texts are read as a stream, encoded on several threads and written in
// the order of files and records, so the bytes of the result depend on texts, tokenizer and options
// alone, not on threads or on how often the work was killed: a finished shard is never done twice,
// an unfinished one is done again. Labels of instruction data lie beside the tokens, as a second
// pair of files of 0 and 1. Memory: some MiB a thread and the longest document.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/instruction.h"
#include "data/record_file.h"
#include "data/token_source.h"
#include "text/tokenizer.h"

namespace tern::data {

struct ShardOptions {
  std::vector<std::string> files;      // Paths or globs, as ExpandGlobs
  std::optional<RecordFormat> format;  // Absent: by each file's name
  std::string text_field = "text";     // JSON and Parquet; a plain text file is one document
  // Documents are held out by a hash of their text and the seed: equal texts are on one side.
  double validation_fraction = 0;
  uint64_t seed = 42;
  int64_t shard_tokens = 100'000'000;  // A shard ends with the document that reaches this
  int threads = 0;                     // Encoders; 0: one a processor
  InstructionOptions instruction;      // Instead of text_field, when its kind is not kText
};

struct ShardTotals {
  int64_t train_tokens = 0, validation_tokens = 0;
  int64_t train_documents = 0, validation_documents = 0;
  int64_t empty_records = 0;  // Without text: left out
  int64_t shards = 0;
  int64_t shards_before = 0;  // Of them, found finished
};

// Makes the shards of `folder`, or what is missing of them. Throws InputError for files, records or
// texts that cannot be read (RecordFile, TextOf), for a folder that holds shards of other files
// (path, size, time of change), another tokenizer or other options, and when there is no document;
// StoppedError after a stop signal; ResourceError (disk full, or another process is at work there).
ShardTotals MakeShards(const std::string& folder, const ShardOptions& options,
                       const text::Tokenizer& tokenizer);

// All shards of a finished folder as one source, in their order. Throws InputError when there is no
// manifest, FormatError when it is damaged, not finished, of another tokenizer, or a shard is not
// as it tells.
std::unique_ptr<TokenSource> OpenShards(const std::string& folder,
                                        const text::Tokenizer& tokenizer);

}  // namespace tern::data
