// 4-bit product for many tokens on tensor cores (mma.m16n8k16). The frame is ternary_gemm.cuh's:
// three stages of shared memory filled by cp.async, 128-bit shared loads, one barrier a step.
//
//   block: 128 rows x 64 tokens, 8 warps of 32 rows x 32 tokens; a step: one group of 128 k
//   weights      a row 64 bytes  = 4 chunks;  lane 4 g + t: chunk t of rows g, g + 8 = words 4 t +
//   r activations  a row 256 bytes = 16 chunks; the one that belongs to word 4 t + r is 4 r + t
//
// A group's sum is scaled in fp32 when it is whole, so scales are never rounded into weights.
// Scales and zero points of the next step are loaded while this one is multiplied. Banks: eight
// lanes (two rows, four t) read at once; activation chunks of odd rows are stored at their number
// xor 4.
#pragma once

#include "kernels/common/fill_rows.cuh"
#include "kernels/w4a16/w4a16_fragments.cuh"

namespace tern::kernels {

inline constexpr int kW4GemmThreads = 256;
inline constexpr int kW4GemmStages = 3;  // 72 KiB.
inline constexpr int kW4GemmRows = 128;
inline constexpr int kW4GemmTokens = 64;
inline constexpr int kW4GemmWeightBytes = kW4GemmRows * 64;
inline constexpr int kW4GemmStageBytes = kW4GemmWeightBytes + kW4GemmTokens * 256;
inline constexpr int kW4GemmSharedBytes = kW4GemmStages * kW4GemmStageBytes;

TERN_DEVICE int W4GemmChunkOffset(int chunk, int row) { return 16 * (chunk ^ (4 * (row & 1))); }

TERN_DEVICE void W4GemmFillStage(const W4A16DeviceArgs& args, uint8_t* stage, int group) {
  FillRows<kW4GemmThreads, kW4GemmRows, 4>(
      stage, RowSource{args.w, args.n, 64 * args.groups, int64_t{64} * args.groups},
      static_cast<int>(blockIdx.x) * kW4GemmRows, 64 * group,
      [](int chunk, int) { return 16 * chunk; });
  FillRows<kW4GemmThreads, kW4GemmTokens, 16>(
      stage + kW4GemmWeightBytes, RowSource{args.x, args.m, 256 * args.groups, 2 * args.ldx},
      static_cast<int>(blockIdx.y) * kW4GemmTokens, 256 * group,
      [](int chunk, int token) { return W4GemmChunkOffset(chunk, token); });
}

// Rows 16 i / 2 + 8 (i % 2) + g of the warp's 32, i = 0..3.
template <bool kBf16>
TERN_DEVICE void W4GemmLoadRowGroups(const W4A16DeviceArgs& args, int row0, int group,
                                     W4RowGroup (&rows)[4]) {
  TERN_UNROLL
  for (int i = 0; i < 4; ++i) rows[i] = W4LoadRowGroup<kBf16>(args, row0 + 8 * i, group);
}

// total[half][tile] += the group of this stage, scaled.
template <bool kBf16>
TERN_DEVICE void W4GemmStep(const uint8_t* stage, const W4RowGroup (&rows)[4],
                            float (&total)[2][4][4]) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int g = lane / 4, t = lane % 4;
  const uint8_t* weights = stage + (32 * (warp % 4) + g) * 64 + 16 * t;
  const uint8_t* activations = stage + kW4GemmWeightBytes + (32 * (warp / 4) + g) * 256;
  simt::Words4 words[4];
  TERN_UNROLL
  for (int i = 0; i < 4; ++i) words[i] = simt::LoadShared128(weights + 8 * i * 64);
  float part[2][4][4] = {};
  TERN_UNROLL
  for (int r = 0; r < 4; ++r) {
    uint32_t pairs[4][4];  // [row][pair]
    TERN_UNROLL
    for (int i = 0; i < 4; ++i) W4Pairs<kBf16>(words[i].word[r], rows[i].zero_pair, pairs[i]);
    TERN_UNROLL
    for (int tile = 0; tile < 4; ++tile) {
      const simt::Words4 x =
          simt::LoadShared128(activations + 8 * tile * 256 + W4GemmChunkOffset(4 * r + t, g));
      TERN_UNROLL
      for (int step = 0; step < 2; ++step) {
        const uint32_t b[2] = {x.word[2 * step], x.word[2 * step + 1]};
        TERN_UNROLL
        for (int half = 0; half < 2; ++half) {
          const uint32_t a[4] = {pairs[2 * half][2 * step], pairs[2 * half + 1][2 * step],
                                 pairs[2 * half][2 * step + 1], pairs[2 * half + 1][2 * step + 1]};
          W4Multiply<kBf16>(part[half][tile], a, b);
        }
      }
    }
  }
  TERN_UNROLL
  for (int half = 0; half < 2; ++half) {
    TERN_UNROLL
    for (int tile = 0; tile < 4; ++tile) {
      TERN_UNROLL
      for (int i = 0; i < 4; ++i) {
        total[half][tile][i] = simt::MultiplyAdd(rows[2 * half + i / 2].scale, part[half][tile][i],
                                                 total[half][tile][i]);
      }
    }
  }
}

TERN_DEVICE void W4GemmWrite(const W4A16DeviceArgs& args, int row0, const float (&total)[2][4][4]) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int token0 =
      static_cast<int>(blockIdx.y) * kW4GemmTokens + 32 * (warp / 4) + 2 * (lane % 4);
  TERN_UNROLL
  for (int tile = 0; tile < 4; ++tile) {
    TERN_UNROLL
    for (int i = 0; i < 8; ++i) {  // Row i / 2 of this lane, token i % 2.
      const int row = row0 + 8 * (i / 2), token = token0 + 8 * tile + i % 2;
      if (row < args.n && token < args.m) {
        args.y[token * args.ldy + row] = W4Scaled(args, total[i / 4][tile][i % 4], token);
      }
    }
  }
}

// Grid: ceil(n / kW4GemmRows) x ceil(m / kW4GemmTokens) blocks of kW4GemmThreads, with
// kW4GemmSharedBytes of dynamic shared memory.
template <bool kBf16>
__global__ void __launch_bounds__(kW4GemmThreads) W4A16GemmKernel(const W4A16DeviceArgs args) {
  uint8_t* shared = simt::DynamicShared();
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int row0 = static_cast<int>(blockIdx.x) * kW4GemmRows + 32 * (warp % 4) + lane / 4;
  TERN_UNROLL
  for (int group = 0; group < kW4GemmStages - 1; ++group) {
    if (group < args.groups) W4GemmFillStage(args, shared + group * kW4GemmStageBytes, group);
    simt::CommitCopies();
  }
  float total[2][4][4] = {};
  W4RowGroup rows[4] = {}, next[4] = {};
  if (args.groups > 0) W4GemmLoadRowGroups<kBf16>(args, row0, 0, next);
  int filled = kW4GemmStages - 1, used = 0;  // Stages, modulo kW4GemmStages.
  for (int group = 0; group < args.groups; ++group) {
    TERN_UNROLL
    for (int i = 0; i < 4; ++i) rows[i] = next[i];
    simt::WaitForCopies<kW4GemmStages - 2>();
    // Everyone's bytes of this step are there, and everyone is done with the stage refilled next.
    simt::SyncBlock();
    if (group + kW4GemmStages - 1 < args.groups) {
      W4GemmFillStage(args, shared + filled * kW4GemmStageBytes, group + kW4GemmStages - 1);
    }
    simt::CommitCopies();  // Also an empty group: the wait above counts groups.
    if (group + 1 < args.groups) W4GemmLoadRowGroups<kBf16>(args, row0, group + 1, next);
    W4GemmStep<kBf16>(shared + used * kW4GemmStageBytes, rows, total);
    filled = filled + 1 == kW4GemmStages ? 0 : filled + 1;
    used = used + 1 == kW4GemmStages ? 0 : used + 1;
  }
  W4GemmWrite(args, row0, total);
}

}  // namespace tern::kernels
