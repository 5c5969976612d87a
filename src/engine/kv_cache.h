// The key-value cache: one pool of pages for many sequences (Kwon et al., arXiv 2309.06180). A
// sequence is a list of pages; sequences that begin alike share the whole pages of their prefix. A
// page holds the same 32 positions of every layer.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "arch/model_config.h"
#include "kernels/attention/attention.h"

namespace tern::engine {

class KvCache {
 public:
  // Memory is taken as pages are used: pages * layers * KvPageBytes at most. REQUIRES: pages > 0.
  KvCache(const ModelConfig& config, int64_t pages, kernels::KvType type);
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  // Pages that hold `tokens` tokens.
  static int64_t PagesFor(int64_t tokens) {
    return (tokens + kernels::kKvPageTokens - 1) / kernels::kKvPageTokens;
  }

  kernels::KvPages Layer(int64_t layer) const;
  int64_t free_pages() const { return static_cast<int64_t>(free_.size()); }

  // A page that nobody else has. Throws ResourceError when none is left.
  int32_t Take();
  // One more sequence, or one fewer, has the page.
  void Share(int32_t page) { ++users_[static_cast<size_t>(page)]; }
  void Release(int32_t page);
  bool IsShared(int32_t page) const { return users_[static_cast<size_t>(page)] > 1; }
  // Copies the page's keys and values of every layer.
  void Copy(int32_t from, int32_t to);

 private:
  char* LayerBase(int64_t layer) const { return base_.get() + layer * layer_bytes_; }

  kernels::KvType type_;
  int64_t layers_, kv_heads_, head_width_, page_bytes_, layer_bytes_;
  std::unique_ptr<char, void (*)(void*)> base_;  // [layers, pages, page_bytes]
  std::vector<int32_t> users_, free_;
};

// The tokens of one text in a cache, which must outlive it. Holds its pages until destroyed.
class Sequence {
 public:
  explicit Sequence(KvCache& cache) : cache_(&cache) {}
  ~Sequence() { Truncate(0); }
  Sequence(Sequence&& other) noexcept;
  Sequence& operator=(Sequence&&) = delete;

  int64_t size() const { return size_; }
  const std::vector<int32_t>& pages() const { return pages_; }

  // The same text again, to go on differently: shares whole pages, copies the last one when it is
  // partly filled. Throws ResourceError when no page is left.
  Sequence Fork() const;
  // Begins with the first whole pages of another text's `tokens` tokens, shared, and returns how
  // many tokens that are. REQUIRES: this is empty, and both are of one cache.
  int64_t BeginWith(const Sequence& other, int64_t tokens);
  // Forgets the tokens from `size` on. REQUIRES: 0 <= size <= size().
  void Truncate(int64_t size);
  // Room for `count` more tokens, on pages of its own; and, once they are written, their count.
  // Reserve throws ResourceError when no page is left, the sequence is then as it was.
  void Reserve(int64_t count);
  void Advance(int64_t count) { size_ += count; }

 private:
  KvCache* cache_;
  std::vector<int32_t> pages_;
  int64_t size_ = 0;
};

}  // namespace tern::engine
