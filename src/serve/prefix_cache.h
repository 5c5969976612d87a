// Texts that were run before, kept in the key-value cache for requests that begin alike (a system
// prompt, a conversation that goes on): whole pages are shared, so a new sequence starts behind its
// longest prefix. Keys and values of a position depend on the tokens up to it alone, bit for bit
// (decoder.h), so nobody can tell a reused page from one that was run again. What is kept gives way
// to whatever needs its pages, the longest unused first.
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <vector>

#include "engine/kv_cache.h"

namespace tern::serve {

// Tokens that both begin with.
int64_t CommonPrefix(std::span<const int32_t> a, std::span<const int32_t> b);

class PrefixCache {
 public:
  explicit PrefixCache(engine::KvCache& cache) : cache_(cache) {}

  // Takes over the sequence of these tokens (those that were run), its whole pages.
  void Keep(std::span<const int32_t> tokens, engine::Sequence sequence);

  // Of what is kept, the sequence with the longest common prefix; null when none has a page in
  // common. It counts as used now.
  const engine::Sequence* Find(std::span<const int32_t> tokens, int64_t* common);

  // Lets go of kept sequences until the cache has `pages` free ones, or nothing is kept.
  void MakeFree(int64_t pages);

 private:
  struct Kept {
    std::vector<int32_t> tokens;
    engine::Sequence sequence;
  };

  engine::KvCache& cache_;
  std::list<Kept> kept_;  // The longest unused first
};

}  // namespace tern::serve
