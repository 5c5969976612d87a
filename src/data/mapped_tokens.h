// Token files of other programs, read in place (memory mapped; nothing is copied or prepared):
// Megatron-LM's indexed datasets (.bin and .idx; docs/formats/megatron.md) and llm.c's .bin
// (docs/formats/llmc.md). Headers, sizes and every index entry are checked when a file is opened,
// ids when they are read. Also writes the former, which is what our own shards are.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/token_source.h"

namespace tern::data {

// `path` is that of the .bin, the .idx or what both share. All tokens belong to `split`. Throws
// InputError when a file cannot be read; FormatError when a header, the type of the tokens (uint8,
// uint16, int16, int32, int64 are read), a size or the index is wrong, and from Copy for an id that
// is not below `vocab_size`, with its place.
std::unique_ptr<TokenSource> OpenMegatron(const std::string& path, Split split, int64_t vocab_size);

// GPT-2's files (magic 20240520, version 1, uint16; documents begin with 50256) and Llama-3's
// (magic 20240801, version 7, uint32; 128000). Throws as above.
std::unique_ptr<TokenSource> OpenLlmc(const std::string& path, Split split, int64_t vocab_size);

// Writes an indexed dataset of one sequence a document: uint16 up to 65,536 ids, else int32. Both
// files get their names in Commit, the index last; without it nothing is left.
class MegatronWriter {
 public:
  // `prefix` + ".bin" and ".idx". Throws ResourceError.
  MegatronWriter(const std::string& prefix, int64_t vocab_size);
  ~MegatronWriter();
  void AddDocument(const int32_t* ids, int64_t count);  // Throws ResourceError (disk full).
  int64_t tokens() const;
  int64_t documents() const;
  void Commit();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tern::data
