// The highest logits on a GPU, for sampling: the host then copies a few candidates a token instead
// of a vocabulary. The C++ face in libtern_kernels_cuda.so; no CUDA type appears here.
#pragma once

#include <cstdint>

namespace tern::kernels {

struct TokenLogit {
  int32_t id;
  float logit;
  friend bool operator==(const TokenLogit&, const TokenLogit&) = default;
};

inline constexpr int kTopKMost = 256;

// best[m, k] = the k highest of the n logits of a row, the highest first, of equals the lowest id
// first. Where one is NaN or +Inf, or all are -Inf, the row's first id is -1. Device pointers.
struct TopKArgs {
  const float* logits = nullptr;  // [m, ld]
  TokenLogit* best = nullptr;
  int64_t m = 0, n = 0, ld = 0, k = 0;  // 1 <= k <= n, kTopKMost
};

// Never throws: an error text, or null when all is well. Returns as soon as the kernel is queued.
const char* LaunchTopK(const TopKArgs& args, void* stream);

}  // namespace tern::kernels
