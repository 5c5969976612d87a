// See kv_cache.h.
#include "engine/kv_cache.h"

#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/huge_pages.h"

namespace tern::engine {

KvCache::KvCache(const ModelConfig& config, int64_t pages, kernels::KvType type)
    : type_(type),
      layers_(config.num_layers),
      kv_heads_(config.num_kv_heads),
      head_width_(config.HeadDim()),
      page_bytes_(kernels::KvPageBytes(type, kv_heads_, head_width_)),
      layer_bytes_(pages * page_bytes_),
      base_(static_cast<char*>(AllocateHugePages(static_cast<size_t>(layers_ * layer_bytes_))),
            FreeHugePages),
      users_(static_cast<size_t>(pages)) {
  for (int64_t page = pages; page-- > 0;) free_.push_back(static_cast<int32_t>(page));
}

kernels::KvPages KvCache::Layer(int64_t layer) const {
  return kernels::KvPagesAt(LayerBase(layer), type_, kv_heads_, head_width_);
}

int32_t KvCache::Take() {
  if (free_.empty())
    throw ResourceError(StrCat("the key-value cache is full: all ", users_.size(), " pages of ",
                               kernels::kKvPageTokens,
                               " tokens are in use. End a sequence, or ask for a larger cache"));
  const int32_t page = free_.back();
  free_.pop_back();
  users_[static_cast<size_t>(page)] = 1;
  return page;
}

void KvCache::Release(int32_t page) {
  if (--users_[static_cast<size_t>(page)] == 0) free_.push_back(page);
}

void KvCache::Copy(int32_t from, int32_t to) {
  for (int64_t layer = 0; layer < layers_; ++layer) {
    char* base = LayerBase(layer);
    std::memcpy(base + to * page_bytes_, base + from * page_bytes_,
                static_cast<size_t>(page_bytes_));
  }
}

Sequence::Sequence(Sequence&& other) noexcept
    : cache_(other.cache_), pages_(std::move(other.pages_)), size_(std::exchange(other.size_, 0)) {
  other.pages_.clear();
}

int64_t Sequence::BeginWith(const Sequence& other, int64_t tokens) {
  TERN_CHECK(size_ == 0 && cache_ == other.cache_ && tokens <= other.size_, "a sequence of ", size_,
             " to begin with ", tokens, " of ", other.size_);
  const int64_t whole = tokens / kernels::kKvPageTokens;
  for (int64_t i = 0; i < whole; ++i) {
    pages_.push_back(other.pages_[static_cast<size_t>(i)]);
    cache_->Share(pages_.back());
  }
  size_ = whole * kernels::kKvPageTokens;
  return size_;
}

Sequence Sequence::Fork() const {
  Sequence fork(*cache_);
  const int64_t whole = fork.BeginWith(*this, size_) / kernels::kKvPageTokens;
  if (fork.size_ < size_) {
    fork.pages_.push_back(cache_->Take());
    cache_->Copy(pages_[static_cast<size_t>(whole)], fork.pages_.back());
    fork.size_ = size_;
  }
  return fork;
}

void Sequence::Truncate(int64_t size) {
  TERN_CHECK(size >= 0 && size <= size_, "a sequence of ", size_, " cut to ", size);
  size_ = size;
  while (static_cast<int64_t>(pages_.size()) > KvCache::PagesFor(size)) {
    cache_->Release(pages_.back());
    pages_.pop_back();
  }
}

void Sequence::Reserve(int64_t count) {
  const int64_t wanted = KvCache::PagesFor(size_ + count), held = KvCache::PagesFor(size_);
  // What is written next must be this sequence's alone: after Truncate the last page may be shared.
  const bool split = size_ % kernels::kKvPageTokens != 0 && count > 0 &&
                     cache_->IsShared(pages_[static_cast<size_t>(held - 1)]);
  const int64_t missing = wanted - static_cast<int64_t>(pages_.size()) + (split ? 1 : 0);
  if (missing > cache_->free_pages())
    throw ResourceError(StrCat("the key-value cache has ", cache_->free_pages(),
                               " free pages; this sequence needs ", missing, " more (",
                               kernels::kKvPageTokens, " tokens each)"));
  if (split) {
    int32_t& last = pages_[static_cast<size_t>(held - 1)];
    const int32_t own = cache_->Take();
    cache_->Copy(last, own);
    cache_->Release(std::exchange(last, own));
  }
  while (static_cast<int64_t>(pages_.size()) < wanted) pages_.push_back(cache_->Take());
}

}  // namespace tern::engine
