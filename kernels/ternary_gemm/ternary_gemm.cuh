// int8 activations times T2 weights on tensor cores (mma.m16n8k32.s8), for prefill and large
// batches: y[m][n] = float(acc - x_sum[m]) * out_scale[m] with acc = sum of code * x, as
// TernaryGemmArgs defines it. Integer sums: bit-equal to the CPU, whatever the order.
//
//               tokens (8 or 4 tiles of 8)
//            +---------------------+        one step of k: 256 = two T2 blocks
//   warp 0   | 32 rows x 64 tokens |        weights      a row 64 bytes  = 4 chunks of 16
//   warp 1   | ...                 |        activations  a row 256 bytes = 16 chunks of 16
//   warp 2   |                     |        3 stages in shared memory, filled by cp.async
//   warp 3   |                     |        lane = 4 g + t: chunk t of rows g, g + 8 (weights)
//            +---------------------+
//
// The order of k inside a step is free as long as both operands agree. So lane t takes chunk t of a
// weight row: four words, one 128-bit load, which are fragments a0, a2 of two k-steps for each of
// the four planes (shift by 2i and mask: no permutation, no lane shuffle). The activations of the
// same k are one 16-byte chunk a plane: block t / 2, bytes 32 i + 16 (t % 2).
//
// Banks: eight lanes (two rows, four t) read at once. Weight rows are 64 bytes: eight chunks side
// by side. Activation chunks are stored at their number xor 2 (block 1) xor 4 (odd row), which
// makes the eight different modulo 8. tests/simt/ternary_gemm_test.cc counts: no conflict.
#pragma once

#include <cstdint>

#include "kernels/common/fill_rows.cuh"
#include "kernels/simt/intrin_tensor.h"

namespace tern::kernels {

inline constexpr int kGemmThreads = 128;
inline constexpr int kGemmStages = 3;  // 72 KiB: two blocks a multiprocessor on sm_80, 3 on sm_90.
inline constexpr int kGemmTileRows = 128;  // 32 a warp.
inline constexpr int kGemmStepK = 256;
inline constexpr int kGemmWeightRowBytes = kGemmStepK / 4;
inline constexpr int kGemmWeightStageBytes = kGemmTileRows * kGemmWeightRowBytes;

// kTiles: tiles of 8 tokens in a block, 4 or 8.
template <int kTiles>
inline constexpr int kGemmStageBytes = kGemmWeightStageBytes + 8 * kTiles* kGemmStepK;
template <int kTiles>
inline constexpr int kGemmSharedBytes = kGemmStages* kGemmStageBytes<kTiles>;

// Device pointers; w_t2 and x aligned to 16 bytes, ldx a multiple of 16.
struct TernaryGemmDeviceArgs {
  const uint8_t* w_t2;     // [n, padded_k / 4]
  const int8_t* x;         // [m, ldx], ldx >= padded_k, zero beyond k
  const int32_t* x_sum;    // [m]
  const float* out_scale;  // [m]
  float* y;                // [m, ldy]
  int m, n;
  int padded_k;  // A multiple of 128.
  int64_t ldx, ldy;
};

// Where chunk (block, place in the block) of activation row `row` is stored, in bytes from the row.
TERN_DEVICE int GemmChunkOffset(int block, int place, int row) {
  return 16 * (8 * block + (place ^ (2 * block) ^ (4 * (row & 1))));
}

// Copies step `step` of k into `stage`; rows, tokens and k beyond the matrix become zeros.
template <int kTiles>
TERN_DEVICE void GemmFillStage(const TernaryGemmDeviceArgs& args, uint8_t* stage, int step) {
  const int row_bytes = args.padded_k / 4;
  FillRows<kGemmThreads, kGemmTileRows, kGemmWeightRowBytes / 16>(
      stage, RowSource{args.w_t2, args.n, row_bytes, row_bytes},
      static_cast<int>(blockIdx.x) * kGemmTileRows, step * kGemmWeightRowBytes,
      [](int chunk, int) { return 16 * chunk; });
  FillRows<kGemmThreads, 8 * kTiles, kGemmStepK / 16>(
      stage + kGemmWeightStageBytes, RowSource{args.x, args.m, args.padded_k, args.ldx},
      static_cast<int>(blockIdx.y) * 8 * kTiles, step * kGemmStepK,
      [](int chunk, int token) { return GemmChunkOffset(chunk / 8, chunk % 8, token); });
}

// acc[half][tile] += the 16 rows `half` of the warp times the 8 tokens `tile`, for one step of k.
template <int kTiles>
TERN_DEVICE void GemmStep(const uint8_t* stage, int (&acc)[2][kTiles][4]) {
  constexpr uint32_t kCodes = 0x03030303u;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int g = lane / 4, t = lane % 4;
  const uint8_t* weights = stage + (32 * warp + g) * kGemmWeightRowBytes + 16 * t;
  const uint8_t* activations = stage + kGemmWeightStageBytes + g * kGemmStepK;
  simt::Words4 packed[2][2];  // [half][row g or g + 8]
  TERN_UNROLL
  for (int half = 0; half < 2; ++half) {
    TERN_UNROLL
    for (int upper = 0; upper < 2; ++upper) {
      packed[half][upper] =
          simt::LoadShared128(weights + (16 * half + 8 * upper) * kGemmWeightRowBytes);
    }
  }
  TERN_UNROLL
  for (int plane = 0; plane < 4; ++plane) {
    uint32_t a[2][2][4];  // [half][k-step][fragment]
    TERN_UNROLL
    for (int half = 0; half < 2; ++half) {
      TERN_UNROLL
      for (int i = 0; i < 8; ++i) {  // Bit 0: rows + 8; bit 1: second half of k; bit 2: k-step.
        a[half][i / 4][i % 4] = (packed[half][i & 1].word[i >> 1] >> (2 * plane)) & kCodes;
      }
    }
    const int offset = GemmChunkOffset(t / 2, 2 * plane + t % 2, g);
    TERN_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      const simt::Words4 x = simt::LoadShared128(activations + 8 * tile * kGemmStepK + offset);
      TERN_UNROLL
      for (int k_step = 0; k_step < 2; ++k_step) {
        const uint32_t b[2] = {x.word[2 * k_step], x.word[2 * k_step + 1]};
        simt::MultiplyS8(acc[0][tile], a[0][k_step], b);
        simt::MultiplyS8(acc[1][tile], a[1][k_step], b);
      }
    }
  }
}

template <int kTiles>
TERN_DEVICE void GemmWrite(const TernaryGemmDeviceArgs& args, const int (&acc)[2][kTiles][4]) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int row0 = static_cast<int>(blockIdx.x) * kGemmTileRows + 32 * warp + lane / 4;
  const int token0 = static_cast<int>(blockIdx.y) * 8 * kTiles + 2 * (lane % 4);
  TERN_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    TERN_UNROLL
    for (int odd = 0; odd < 2; ++odd) {
      const int token = token0 + 8 * tile + odd;
      if (token >= args.m) continue;
      const int sum = args.x_sum[token];
      const float scale = args.out_scale[token];
      TERN_UNROLL
      for (int i = 0; i < 4; ++i) {  // Eight rows further each.
        const int row = row0 + 8 * i;
        if (row >= args.n) continue;
        args.y[token * args.ldy + row] =
            static_cast<float>(acc[i / 2][tile][2 * (i % 2) + odd] - sum) * scale;
      }
    }
  }
}

// Grid: ceil(n / kGemmTileRows) x ceil(m / (8 kTiles)) blocks of kGemmThreads, with
// kGemmSharedBytes<kTiles> of dynamic shared memory.
template <int kTiles>
__global__ void __launch_bounds__(kGemmThreads)
    TernaryGemmKernel(const TernaryGemmDeviceArgs args) {
  uint8_t* shared = simt::DynamicShared();
  const int steps = (args.padded_k + kGemmStepK - 1) / kGemmStepK;
  TERN_UNROLL
  for (int step = 0; step < kGemmStages - 1; ++step) {
    if (step < steps) GemmFillStage<kTiles>(args, shared + step * kGemmStageBytes<kTiles>, step);
    simt::CommitCopies();
  }
  int acc[2][kTiles][4] = {};
  int filled = kGemmStages - 1, used = 0;  // Stages, modulo kGemmStages.
  for (int step = 0; step < steps; ++step) {
    simt::WaitForCopies<kGemmStages - 2>();
    // Everyone's bytes of this step are there, and everyone is done with the stage refilled next.
    simt::SyncBlock();
    if (step + kGemmStages - 1 < steps) {
      GemmFillStage<kTiles>(args, shared + filled * kGemmStageBytes<kTiles>,
                            step + kGemmStages - 1);
    }
    simt::CommitCopies();  // Also an empty group: the wait above counts groups.
    GemmStep<kTiles>(shared + used * kGemmStageBytes<kTiles>, acc);
    filled = filled + 1 == kGemmStages ? 0 : filled + 1;
    used = used + 1 == kGemmStages ? 0 : used + 1;
  }
  GemmWrite<kTiles>(args, acc);
}

}  // namespace tern::kernels
