// The k highest logits of a row by radix selection. A logit and its id make one key of 64 bits, all
// different, whose order is that of the result; bytes of the k-th highest key are found from the
// top, each by a histogram of the keys that share the bytes before it:
//
//   key = | logit, bits turned so that they order as integers | ~id |
//   pass: histogram of one byte -> the bin with the k-th -> next byte, until a bin is taken whole
//
// then the keys at or above are gathered in any order and each finds its rank among them.
#pragma once

#include <cstdint>

#include "kernels/common/half.h"
#include "kernels/simt/intrin.h"
#include "kernels/top_k/top_k_cuda.h"

namespace tern::kernels {

inline constexpr int kTopKThreads = 1024;
inline constexpr int kTopKBins = 256, kTopKBinsOfLane = kTopKBins / 32;

TERN_DEVICE uint64_t TopKKey(float logit, int id) {
  const uint32_t bits = HalfFloatBits(logit == 0.0f ? 0.0f : logit);  // -0 equals 0
  const uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(ordered) << 32 | ~static_cast<uint32_t>(id);
}

// Where the k-th highest key was found to lie.
struct TopKPlace {
  int bin, left;  // The bin of the byte, and how many of its keys are wanted
  bool whole;     // All of them
};

// By the first warp. REQUIRES: 1 <= left <= the sum of the histogram.
TERN_DEVICE void FindBin(const int* histogram, int left, TopKPlace* place) {
  const int lane = static_cast<int>(threadIdx.x);
  int own = 0;
  TERN_UNROLL
  for (int j = 0; j < kTopKBinsOfLane; ++j) own += histogram[kTopKBinsOfLane * lane + j];
  int from_here = own;  // Keys in the bins of this lane and those above
  TERN_UNROLL
  for (int delta = 1; delta < 32; delta *= 2) {
    const int other = simt::ShuffleDownInt(from_here, static_cast<unsigned>(delta));
    if (lane + delta < 32) from_here += other;
  }
  int above = from_here - own;
  if (above >= left || from_here < left) return;
  for (int bin = kTopKBinsOfLane * (lane + 1) - 1;; --bin) {
    if (above + histogram[bin] >= left) {
      *place = {bin, left - above, histogram[bin] == left - above};
      return;
    }
    above += histogram[bin];
  }
}

// Grid: m blocks of kTopKThreads.
__global__ void __launch_bounds__(kTopKThreads) TopKKernel(const TopKArgs args) {
  TERN_SHARED(int, histogram, [kTopKBins]);
  TERN_SHARED(uint64_t, kept, [kTopKMost]);
  TERN_SHARED(TopKPlace, place);
  TERN_SHARED(int, kept_count);
  TERN_SHARED(int, bad);
  const int thread = static_cast<int>(threadIdx.x), n = static_cast<int>(args.n),
            k = static_cast<int>(args.k);
  const float* row = args.logits + static_cast<int64_t>(blockIdx.x) * args.ld;
  if (thread == 0) kept_count = bad = 0;
  uint64_t prefix = 0, mask = 0;
  int left = k;
  for (int shift = 56; shift >= 0; shift -= 8) {
    if (thread < kTopKBins) histogram[thread] = 0;
    simt::SyncBlock();
    for (int i = thread; i < n; i += kTopKThreads) {
      const float logit = row[i];
      if (mask == 0 && !(logit < INFINITY)) simt::AddAtomically(&bad, 1);
      const uint64_t key = TopKKey(logit, i);
      if ((key & mask) == prefix) simt::AddAtomically(&histogram[key >> shift & 255u], 1);
    }
    simt::SyncBlock();
    if (thread < 32) FindBin(histogram, left, &place);
    simt::SyncBlock();
    prefix |= static_cast<uint64_t>(place.bin) << shift;
    mask |= uint64_t{255} << shift;
    left = place.left;
    if (place.whole) break;  // The same for all threads
  }
  for (int i = thread; i < n; i += kTopKThreads) {
    const uint64_t key = TopKKey(row[i], i);
    if ((key & mask) >= prefix) kept[simt::AddAtomically(&kept_count, 1)] = key;
  }
  simt::SyncBlock();
  if (thread >= k) return;
  int rank = 0;
  for (int i = 0; i < k; ++i) rank += kept[i] > kept[thread];
  const int id = static_cast<int>(~static_cast<uint32_t>(kept[thread]));
  const bool no_choice = rank == 0 && (bad != 0 || !(row[id] > -INFINITY));
  args.best[blockIdx.x * static_cast<int64_t>(k) + rank] = {no_choice ? -1 : id, row[id]};
}

}  // namespace tern::kernels
