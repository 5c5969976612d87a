// Weights to T2 on a GPU, with the numbers of ternary_quantize.h to the last bit.
//
// Quantize: one warp a row and one 32-bit word of T2 a lane and step. Word j of a block of 128
// weights holds k = 4j..4j+3 of each of the four planes: four 128-bit loads.
//   lanes  0..7 : block 0   |   8..15 : block 1   | 16..23 : block 2 | 24..31 : block 3
//   plane p: lane j reads 128 block + 32 p + 4 j, eight lanes 128 bytes in a row
// Zeros and flips are counted on the packed words; lanes of a warp join, then one atomic addition
// of integers a warp.
#pragma once

#include <cstdint>

#include "kernels/common/row.cuh"
#include "kernels/ternary_quantize/ternary_quantize.h"
#include "kernels/ternary_quantize/ternary_quantize_cuda.h"

namespace tern::kernels {

// 0, 1 or 2. NaN becomes 2, as on the CPU.
TERN_DEVICE uint32_t TernaryCode(float w, float inv_scale) {
  const float scaled = w * inv_scale;
  const float upper = scaled < 1.0f ? scaled : 1.0f;
  return static_cast<uint32_t>(static_cast<int>(rintf(upper > -1.0f ? upper : -1.0f)) + 1);
}

struct PackedWord {
  uint32_t codes;
  int padding;  // Codes beyond the row, which are 1.
};

// Word `t` of a row of k weights.
TERN_DEVICE PackedWord QuantizeWord(const float* w, int k, int t, float inv_scale) {
  const int first = t / 8 * 128 + t % 8 * 4;
  PackedWord word = {0, 0};
  TERN_UNROLL
  for (int plane = 0; plane < 4; ++plane) {
    const int left = k - first - 32 * plane;
    const Floats4 v = LoadFour(w + first + 32 * plane, left);
    TERN_UNROLL
    for (int j = 0; j < 4; ++j) {
      word.codes |= TernaryCode(v.value[j], inv_scale) << (8 * j + 2 * plane);
      word.padding += j >= left;
    }
  }
  return word;
}

// Grid: any number of blocks of kRowThreads, rows are shared among their warps; n / warps times k
// below 2^31.
__global__ void __launch_bounds__(kRowThreads)
    TernaryQuantizeKernel(const TernaryQuantizeCudaArgs args) {
  constexpr uint32_t kLowBits = 0x55555555u;
  const int lane = static_cast<int>(threadIdx.x) % 32, words = args.padded_k / 16;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kRowWarps + threadIdx.x / 32;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * kRowWarps;
  const float inv_scale = 1.0f / *args.beta;
  int zeros = 0, flips = 0;
  for (int64_t row = first; row < args.n; row += warps) {
    auto* t2 = reinterpret_cast<uint32_t*>(args.t2) + row * words;
    for (int t = lane; t < words; t += 32) {
      const PackedWord word = QuantizeWord(args.w + row * args.k, args.k, t, inv_scale);
      zeros += simt::CountBits(word.codes & kLowBits) - word.padding;
      if (args.previous != nullptr) {
        const auto* previous = reinterpret_cast<const uint32_t*>(args.previous);
        const uint32_t changed = word.codes ^ previous[row * words + t];
        flips += simt::CountBits((changed | changed >> 1) & kLowBits);
      }
      t2[t] = word.codes;
    }
  }
  TERN_UNROLL
  for (unsigned mask = 16; mask > 0; mask /= 2) {
    zeros += simt::ShuffleXorInt(zeros, mask);
    flips += simt::ShuffleXorInt(flips, mask);
  }
  if (lane != 0) return;
  simt::AddAtomically(&args.counts->zeros, zeros);
  simt::AddAtomically(&args.counts->flips, flips);
}

}  // namespace tern::kernels
