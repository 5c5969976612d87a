// manifest.json of a folder of shards (docs/formats/shards.md): what they were made from, which are
// finished, and where the next begins. Written whole after each shard. Internal to the module.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "data/token_source.h"

namespace tern::data {

struct ShardSplit {
  int64_t tokens = 0, documents = 0, text_bytes = 0;
};

// Behind the last record that is in a shard.
struct ShardPosition {
  int64_t file = 0;     // Index into the files
  int64_t records = 0;  // Of that file, already read
};

struct Shard {
  std::array<ShardSplit, 2> splits;  // By Split
  int64_t empty_records = 0;
  ShardPosition end;
};

struct ShardManifest {
  // Everything that decides the content: one JSON object as text, compared as it is.
  std::string made_from;
  std::string tokenizer_sha256;
  int64_t vocab_size = 0;
  bool complete = false;
  std::vector<Shard> shards;

  static std::string PathIn(const std::string& folder);
  // Throws FormatError: no JSON, of another version, a field missing or out of range.
  static ShardManifest Read(const std::string& folder);
  void Write(const std::string& folder) const;  // Atomically. Throws ResourceError.
};

// "00007.train": the name of a shard's file without .bin and .idx.
std::string ShardName(int64_t index, Split split);

}  // namespace tern::data
