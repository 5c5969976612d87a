// beta on all threads in the one fixed order, and the choice of the row quantizer by instruction
// set.
#include "kernels/ternary_quantize/ternary_quantize.h"

#include <atomic>
#include <cmath>
#include <vector>

#include "kernels/common/versions.h"
#include "kernels/ternary_pack/t2.h"
#include "kernels/ternary_quantize/ternary_quantize_impl.h"

namespace tern::kernels {
namespace {

// A chain of dependent additions gives one element each 3 or 4 cycles; eight blocks at a time hide
// that latency.
constexpr int64_t kChains = 8;
constexpr int64_t kScaleGrain =
    16;  // Blocks (256 KiB) below which waking a thread costs more than it saves.
constexpr int64_t kQuantizeGrain = 65536;  // Weights, likewise.

void SumEightBlocks(const float* w, float* sums) {
  float sum[kChains] = {};
  for (int64_t i = 0; i < kAbsMeanBlock; ++i) {
#pragma GCC unroll 8  // Keeps the sums in registers.
    for (int64_t c = 0; c < kChains; ++c) sum[c] += std::fabs(w[c * kAbsMeanBlock + i]);
  }
  for (int64_t c = 0; c < kChains; ++c) sums[c] = sum[c];
}

TernaryCounts QuantizeRows(const float* w, int64_t begin, int64_t end, int64_t k, float inv_scale,
                           uint8_t* t2, const uint8_t* previous) {
  return TERN_ACTIVE(TernaryQuantizeRows)(w, begin, end, k, inv_scale, t2, previous);
}

}  // namespace

void AbsBlockSums(const float* w, int64_t count, int64_t block_begin, int64_t block_end,
                  float* sums) {
  int64_t block = block_begin;
  for (; block + kChains <= block_end && (block + kChains) * kAbsMeanBlock <= count;
       block += kChains) {
    SumEightBlocks(w + block * kAbsMeanBlock, sums + block);
  }
  AbsBlockSumsRef(w, count, block, block_end, sums);
}

float TernaryScale(const float* w, int64_t count, const ParallelFor& parallel) {
  if (count == 0) return kScaleFloor;
  const int64_t blocks = (count + kAbsMeanBlock - 1) / kAbsMeanBlock;
  std::vector<float> sums(static_cast<size_t>(blocks));
  parallel(blocks, kScaleGrain,
           [&](int64_t begin, int64_t end) { AbsBlockSums(w, count, begin, end, sums.data()); });
  return ScaleOfBlockSums(sums.data(), blocks, count);
}

float ScaleOfBlockSums(const float* sums, int64_t blocks, int64_t count) {
  double total = 0.0;
  for (int64_t b = 0; b < blocks; ++b) total += static_cast<double>(sums[b]);
  const float mean = static_cast<float>(total / static_cast<double>(count));
  return mean < kScaleFloor ? kScaleFloor : mean;  // In this form NaN stays NaN.
}

TernaryCounts TernaryQuantize(const float* w, int64_t n, int64_t k, float beta, uint8_t* t2,
                              const uint8_t* previous, const ParallelFor& parallel) {
  const float inv_scale = 1.0f / beta;
  std::atomic<int64_t> zeros{0}, flips{0};
  const int64_t grain = k >= kQuantizeGrain ? 1 : kQuantizeGrain / (k > 0 ? k : 1);
  parallel(n, grain, [&](int64_t begin, int64_t end) {
    const TernaryCounts part = QuantizeRows(w, begin, end, k, inv_scale, t2, previous);
    zeros += part.zeros;
    flips += part.flips;
  });
  return {zeros, flips};
}

}  // namespace tern::kernels
