// Ternary matrix times 1 to 8 int8 vectors on a GPU, from the same T2 bytes as the CPU kernels.
//
//   one warp a row:   lane 0        lane 1        lane 2 ...      16 bytes = 64 codes a lane and
//   step, coalesced T2 row            [ block 0: 32 bytes         ][ block 1 ... lane's codes k =
//   128 (c/2) + 32 i + 16 (c%2) + 0..15 for planes i = 0..3, c = lane, lane + 32, ...
//
// Each plane is one shift and mask of the four words; each word is one dp4a with the activations of
// the same k, into four independent sums (a single chain of dependent dp4a would wait for its own
// latency). The code is weight + 1, so the row sum of the activations is taken off at the end: no
// subtraction a weight. Integer sums: any order gives the same bits.
//
// kWarpsPerRow > 1 splits k over the warps of a block for matrices with few rows; their sums meet
// in shared memory.
#pragma once

#include <cstdint>

#include "kernels/simt/intrin.h"

namespace tern::kernels {

inline constexpr int kGemvMaxBatch = 8;
inline constexpr int kGemvBlockThreads = 128;
inline constexpr int kGemvBlockWarps = kGemvBlockThreads / 32;

// Device pointers. w_t2 and x aligned to 16 bytes, ldx a multiple of 16.
struct TernaryGemvArgs {
  const uint8_t* w_t2;     // [n, padded_k / 4]
  const int8_t* x;         // [batch, ldx], ldx >= padded_k, zero beyond k
  const int32_t* x_sum;    // [batch]
  const float* out_scale;  // [batch]
  float* y;                // [batch, ldy]
  int n;
  int padded_k;  // A multiple of 128.
  int ldx, ldy;
};

// acc[b][j] += word j of the 64 codes at step c times the activations of vector b.
template <int kBatch>
TERN_DEVICE void AddStep(const TernaryGemvArgs& args, const uint8_t* w, int c,
                         int (&acc)[kBatch][4]) {
  const simt::Words4 packed = simt::LoadConstant128(w + c * 16);
  const int8_t* x = args.x + (c >> 1) * 128 + (c & 1) * 16;
  TERN_UNROLL
  for (int plane = 0; plane < 4; ++plane) {
    TERN_UNROLL
    for (int b = 0; b < kBatch; ++b) {
      const simt::Words4 a = simt::LoadConstant128(x + b * args.ldx + 32 * plane);
      TERN_UNROLL
      for (int j = 0; j < 4; ++j) {
        acc[b][j] =
            simt::DotBytes((packed.word[j] >> (2 * plane)) & 0x03030303u, a.word[j], acc[b][j]);
      }
    }
  }
}

// Sum over the warp, valid in lane 0.
TERN_DEVICE int SumWarp(int value) {
  TERN_UNROLL
  for (unsigned delta = 16; delta > 0; delta /= 2) value += simt::ShuffleDownInt(value, delta);
  return value;
}

TERN_DEVICE void WriteRow(const TernaryGemvArgs& args, int b, int row, int sum) {
  args.y[static_cast<int64_t>(b) * args.ldy + row] =
      static_cast<float>(sum - args.x_sum[b]) * args.out_scale[b];
}

// Grid: ceil(n * kWarpsPerRow / kGemvBlockWarps) blocks of kGemvBlockThreads. kWarpsPerRow: 1 or
// kGemvBlockWarps.
template <int kBatch, int kWarpsPerRow>
__global__ void __launch_bounds__(kGemvBlockThreads) TernaryGemvKernel(const TernaryGemvArgs args) {
  static_assert(kWarpsPerRow == 1 || kWarpsPerRow == kGemvBlockWarps);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int row = kWarpsPerRow == 1 ? static_cast<int>(blockIdx.x) * kGemvBlockWarps + warp
                                    : static_cast<int>(blockIdx.x);
  if (row >= args.n) return;  // Whole warps: row is the same for all lanes.
  const uint8_t* w = args.w_t2 + static_cast<int64_t>(row) * (args.padded_k / 4);
  int acc[kBatch][4] = {};
  const int first = kWarpsPerRow == 1 ? lane : warp * 32 + lane;
  for (int c = first; c < args.padded_k / 64; c += 32 * kWarpsPerRow)
    AddStep<kBatch>(args, w, c, acc);

  TERN_SHARED(int, partial, [kGemvBlockWarps][kBatch]);
  TERN_UNROLL
  for (int b = 0; b < kBatch; ++b) {
    const int sum = SumWarp((acc[b][0] + acc[b][1]) + (acc[b][2] + acc[b][3]));
    if (lane != 0) continue;
    if constexpr (kWarpsPerRow == 1) {
      WriteRow(args, b, row, sum);
    } else {
      partial[warp][b] = sum;
    }
  }
  if constexpr (kWarpsPerRow > 1) {
    simt::SyncBlock();
    if (static_cast<int>(threadIdx.x) < kBatch) {
      const int b = static_cast<int>(threadIdx.x);
      int sum = 0;
      TERN_UNROLL
      for (int i = 0; i < kGemvBlockWarps; ++i) sum += partial[i][b];
      WriteRow(args, b, row, sum);
    }
  }
}

}  // namespace tern::kernels
