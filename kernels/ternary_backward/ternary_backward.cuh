// Both products of BitLinear's backward pass on tensor cores (mma.m16n8k16, bf16, fp32 sums):
//
//   dX: rows = tokens, sum over n: A = dY [m][n],   B = T2 weights [n][k]
//   dW: rows = n,  sum over tokens: A = dY [m][n]^T, B = int8 codes [m][k]
//
//             128 columns of k
//          +---------+---------+      one step of the sum: 32; 4 stages of shared memory, filled by
//   64 rows| warp 0  | warp 1  |      cp.async; one barrier a step
//          +---------+---------+      lane = 4 g + t
//   64 rows| warp 2  | warp 3  |      16 x 8 results: rows g, g + 8; columns 2 t, 2 t + 1
//          +---------+---------+
//
// B's codes lie side by side along k, but a register of a fragment holds two neighbours along the
// sum: the same bits of two rows. A lane takes one word of four rows (2 t, 2 t + 1, 2 t + 8, 2 t +
// 9) and one byte permutation brings two bytes of a pair of rows side by side. A word is four
// columns (of each plane, for T2), which are four 16 x 8 results: so mma column g is word
// GradientWord(g), and a lane's results are runs of four columns, 16 bytes, whose four lanes fill
// sectors. Each code becomes bf16 exactly, two at a time:
//
//   T2    codes 00, 01, 10 inverted are 11, 10, 01: sign and "not 0" of the weight. As bits 15 and
//         14 of a bf16 they are -2, -0 and 2: a shift and a lop3.
//   int8  bf16(128 + low seven bits) - bf16(128, or 256 if bit 7 is set): both are or-ed together,
//         since bit 7 is the lowest of the exponent; two lop3 and an hfma2.
//
// No atomics, no split sums: each result is one chain of fp32 additions in a fixed order.
// tests/simt/ternary_backward_test.cc counts: no bank conflict, whole sectors.
#pragma once

#include "kernels/common/fill_rows.cuh"
#include "kernels/common/row.cuh"
#include "kernels/simt/intrin_half.h"
#include "kernels/simt/intrin_tensor.h"

namespace tern::kernels {

inline constexpr int kGradThreads = 128;
inline constexpr int kGradTile = 128;  // Rows and columns of the result in a block.
inline constexpr int kGradStep = 32;   // Terms of the sum in a stage.
inline constexpr int kGradStages = 4;
inline constexpr int kGradRowsBytes = 2 * kGradTile * kGradStep;  // Of A.
inline constexpr int kInputGradStageBytes = kGradRowsBytes + kGradStep * kGradTile / 4;
inline constexpr int kWeightGradStageBytes = kGradRowsBytes + kGradStep * kGradTile;
inline constexpr int kInputGradSharedBytes = kGradStages * kInputGradStageBytes;    // 36 KiB.
inline constexpr int kWeightGradSharedBytes = kGradStages * kWeightGradStageBytes;  // 48 KiB.

// Device pointers; dy, w_t2 and x aligned to 16 bytes, lddy a multiple of 8, ldx of 16.
struct InputGradientDeviceArgs {
  const uint16_t* dy;   // [m, lddy]
  const uint8_t* w_t2;  // [n, padded_k / 4]
  float* dx;            // [m, lddx]
  float half_beta;      // Weights are multiplied as -2, 0, 2.
  bool add;
  int m, n, k, padded_k;
  int64_t lddy, lddx;
};
struct WeightGradientDeviceArgs {
  const uint16_t* dy;  // [m, lddy]
  const int8_t* x;     // [m, ldx]
  float* dw;           // [n, lddw]
  int m, n, k, padded_k;
  int64_t lddy, ldx, lddw;
};

// Sums of a lane: [16 rows][32 columns][byte of a word].
using GradientSums = float[4][2][4][4];

// The word of 32 columns that column g of a matrix step stands for.
TERN_DEVICE int GradientWord(int g) { return g / 2 + 4 * (g % 2); }

// multiply(stage) for each of `steps` stages that fill(stage, step) copied.
template <int kStageBytes, class Fill, class Multiply>
TERN_DEVICE void GradientSteps(int steps, const Fill& fill, const Multiply& multiply) {
  uint8_t* shared = simt::DynamicShared();
  TERN_UNROLL
  for (int step = 0; step < kGradStages - 1; ++step) {
    if (step < steps) fill(shared + step * kStageBytes, step);
    simt::CommitCopies();
  }
  int filled = kGradStages - 1, used = 0;  // Stages, modulo kGradStages.
  for (int step = 0; step < steps; ++step) {
    simt::WaitForCopies<kGradStages - 2>();
    // Everyone's bytes of this step are there, and everyone is done with the stage refilled next.
    simt::SyncBlock();
    if (step + kGradStages - 1 < steps) {
      fill(shared + filled * kStageBytes, step + kGradStages - 1);
    }
    simt::CommitCopies();  // Also an empty group: the wait above counts groups.
    multiply(shared + used * kStageBytes);
    filled = filled + 1 == kGradStages ? 0 : filled + 1;
    used = used + 1 == kGradStages ? 0 : used + 1;
  }
}

// out[0..3] = [out +] scale * sums, of which `left` exist.
TERN_DEVICE void GradientStoreFour(float* out, const Floats4& sums, float scale, bool add,
                                   int left) {
  Floats4 v = {{0.0f, 0.0f, 0.0f, 0.0f}};
  if (add) v = LoadFourMutable(out, left);
  TERN_UNROLL
  for (int j = 0; j < 4; ++j) {
    v.value[j] = add ? v.value[j] + sums.value[j] * scale : sums.value[j] * scale;
  }
  if (left >= 4 && reinterpret_cast<uintptr_t>(out) % 16 == 0) {
    simt::Words4 words;
    memcpy(&words, &v, sizeof(words));
    simt::StoreGlobal128(out, words);
  } else {
    TERN_UNROLL
    for (int j = 0; j < 4; ++j) {
      if (j < left) out[j] = v.value[j];
    }
  }
}

TERN_DEVICE void GradientWrite(float* out, int rows, int columns, int64_t ld, float scale, bool add,
                               const GradientSums& sums) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int row0 = static_cast<int>(blockIdx.y) * kGradTile + 64 * (warp / 2) + lane / 4;
  const int column0 = static_cast<int>(blockIdx.x) * kGradTile + 64 * (warp % 2) + 4 * (lane % 4);
  TERN_UNROLL
  for (int i = 0; i < 8; ++i) {  // Eight rows further each.
    const int row = row0 + 8 * i;
    if (row >= rows) continue;
    TERN_UNROLL
    for (int run = 0; run < 4; ++run) {  // Sixteen columns further each.
      const int column = column0 + 16 * run;
      if (column >= columns) continue;
      Floats4 four;
      TERN_UNROLL
      for (int j = 0; j < 4; ++j) four.value[j] = sums[i / 2][run / 2][j][2 * (i % 2) + run % 2];
      GradientStoreFour(out + row * ld + column, four, scale, add, columns - column);
    }
  }
}

// ---- dX. Of a stage: 128 tokens of 64 bytes, then 32 rows of T2 of 32 bytes.

// ldmatrix reads eight rows at once, of which two lie in 128 bytes: four pairs, four places.
TERN_DEVICE int InputGradChunk(int chunk, int row) { return 16 * (chunk ^ (row / 2 % 4)); }

// Where T2 row `row` is stored, in rows. A lane reads rows 2 t or 2 t + 1, cp.async writes four
// neighbours at once: both sets are four different rows modulo 4, which are 128 bytes.
TERN_DEVICE int InputGradSlot(int row) {
  return (row & ~3) | ((row % 2 * 2 + row / 2 % 2) ^ (row & 4) / 2);
}

TERN_DEVICE void InputGradFill(const InputGradientDeviceArgs& args, uint8_t* stage, int step) {
  constexpr int kWeightThreads = 2 * kGradStep;
  FillRows<kGradThreads, kGradTile, 4>(
      stage, RowSource{args.dy, args.m, (args.n + 7) / 8 * 16, 2 * args.lddy},
      static_cast<int>(blockIdx.y) * kGradTile, 2 * kGradStep * step,
      [](int chunk, int row) { return InputGradChunk(chunk, row); });
  if (threadIdx.x >= kWeightThreads) return;
  FillRows<kWeightThreads, kGradStep, 2>(
      stage + kGradRowsBytes, RowSource{args.w_t2, args.n, args.padded_k / 4, args.padded_k / 4},
      kGradStep * step, static_cast<int>(blockIdx.x) * kGradTile / 4,
      [](int chunk, int row) { return 16 * chunk + 32 * (InputGradSlot(row) - row); });
}

// -2, -0 or 2 from the fields that are bits 15 and 14 of both halves once they are shifted.
TERN_DEVICE uint32_t TernaryPair(uint32_t bits, int shift) {
  return ~(bits << shift) & 0xC000C000u;
}

TERN_DEVICE void InputGradMultiply(const uint8_t* stage, GradientSums& sums) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int t = lane % 4, first_plane = 2 * (warp % 2);
  const uint8_t* rows = stage + (64 * (warp / 2) + lane % 16) * 64;
  const uint8_t* words = stage + kGradRowsBytes + 4 * GradientWord(lane / 4);
  const uint8_t* even_rows = words + 32 * InputGradSlot(2 * t);
  const uint8_t* odd_rows = words + 32 * InputGradSlot(2 * t + 1);
  TERN_UNROLL
  for (int step = 0; step < kGradStep / 16; ++step) {
    uint32_t a[4][4], packed[2][2];  // [8 rows][bytes 0 and 1, or 2 and 3]
    TERN_UNROLL
    for (int upper = 0; upper < 2; ++upper) {
      const int at = 32 * (16 * step + 8 * upper);
      const uint32_t even = simt::LoadShared32(even_rows + at);
      const uint32_t odd = simt::LoadShared32(odd_rows + at);
      packed[upper][0] = simt::PermuteBytes(even, odd, 0x5410);
      packed[upper][1] = simt::PermuteBytes(even, odd, 0x7632);
    }
    TERN_UNROLL
    for (int i = 0; i < 4; ++i) {
      simt::LoadMatrix(a[i], rows + 16 * 64 * i + InputGradChunk(2 * step + lane / 16, lane % 16));
    }
    TERN_UNROLL
    for (int part = 0; part < 8; ++part) {
      const int j = part % 4, plane = part / 4;
      const int shift = 14 - 8 * (j % 2) - 2 * (first_plane + plane);
      const uint32_t b[2] = {TernaryPair(packed[0][j / 2], shift),
                             TernaryPair(packed[1][j / 2], shift)};
      TERN_UNROLL
      for (int i = 0; i < 4; ++i) simt::MultiplyBf16(sums[i][plane][j], a[i], b);
    }
  }
}

// Grid: ceil(k / 128) x ceil(m / 128) blocks of kGradThreads, with kInputGradSharedBytes of dynamic
// shared memory.
__global__ void __launch_bounds__(kGradThreads)
    TernaryInputGradientKernel(const InputGradientDeviceArgs args) {
  GradientSums sums = {};
  GradientSteps<kInputGradStageBytes>(
      (args.n + kGradStep - 1) / kGradStep,
      [&](uint8_t* stage, int step) { InputGradFill(args, stage, step); },
      [&](const uint8_t* stage) { InputGradMultiply(stage, sums); });
  GradientWrite(args.dx, args.m, args.k, args.lddx, args.half_beta, args.add, sums);
}

// ---- dW. Of a stage: 32 tokens of 256 bytes of dY, then 32 tokens of 128 codes.

// ldmatrix reads the same chunk of eight rows: eight places.
TERN_DEVICE int WeightGradChunk(int chunk, int row) { return 16 * (chunk ^ (row % 8)); }
// A warp reads chunks 2 q and 2 q + 1 of rows 2 t, or 2 t + 1: four pairs, four places.
TERN_DEVICE int WeightGradCodes(int chunk, int row) { return 16 * (chunk ^ (row / 2 % 4 * 2)); }

TERN_DEVICE void WeightGradFill(const WeightGradientDeviceArgs& args, uint8_t* stage, int step) {
  FillRows<kGradThreads, kGradStep, 16>(
      stage, RowSource{args.dy, args.m, (args.n + 7) / 8 * 16, 2 * args.lddy}, kGradStep * step,
      static_cast<int>(blockIdx.y) * 2 * kGradTile,
      [](int chunk, int row) { return WeightGradChunk(chunk, row); });
  FillRows<kGradThreads, kGradStep, 8>(
      stage + kGradRowsBytes, RowSource{args.x, args.m, args.padded_k, args.ldx}, kGradStep * step,
      static_cast<int>(blockIdx.x) * kGradTile,
      [](int chunk, int row) { return WeightGradCodes(chunk, row); });
}

// bf16 of the signed bytes that are the lowest of both halves.
TERN_DEVICE uint32_t BytePair(uint32_t bits) {
  constexpr uint32_t kOne = 0x3F803F80u;
  return simt::MultiplyAddBf16x2(simt::AndOr(bits, 0x007F007Fu, 0x43004300u), kOne,
                                 simt::AndOr(bits, 0x00800080u, 0xC300C300u));
}

TERN_DEVICE void WeightGradMultiply(const uint8_t* stage, GradientSums& sums) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int g = lane / 4, t = lane % 4, matrix = lane / 8;
  const int row = lane % 8 + 8 * (matrix / 2), chunk = 8 * (warp / 2) + matrix % 2;
  const uint8_t* rows = stage + row * 256;
  const uint8_t* codes = stage + kGradRowsBytes + 2 * t * 128 + 4 * (GradientWord(g) % 4);
  TERN_UNROLL
  for (int step = 0; step < kGradStep / 16; ++step) {
    uint32_t a[4][4];
    TERN_UNROLL
    for (int i = 0; i < 4; ++i) {
      simt::LoadMatrix<4, true>(a[i], rows + 16 * 256 * step + WeightGradChunk(chunk + 2 * i, row));
    }
    TERN_UNROLL
    for (int q = 0; q < 2; ++q) {
      const int from = 16 * 128 * step + WeightGradCodes(4 * (warp % 2) + 2 * q + g % 2, 2 * t);
      uint32_t words[2][2];  // [8 tokens][even or odd one]
      TERN_UNROLL
      for (int u = 0; u < 4; ++u) {
        words[u / 2][u % 2] = simt::LoadShared32(codes + from + 8 * 128 * (u / 2) + 128 * (u % 2));
      }
      TERN_UNROLL
      for (int j = 0; j < 4; ++j) {
        const uint32_t select = 0x0400u + 0x0101u * static_cast<uint32_t>(j);  // Byte j of both.
        const uint32_t b[2] = {BytePair(simt::PermuteBytes(words[0][0], words[0][1], select)),
                               BytePair(simt::PermuteBytes(words[1][0], words[1][1], select))};
        TERN_UNROLL
        for (int i = 0; i < 4; ++i) simt::MultiplyBf16(sums[i][q][j], a[i], b);
      }
    }
  }
}

// Grid: ceil(k / 128) x ceil(n / 128) blocks of kGradThreads, with kWeightGradSharedBytes of
// dynamic shared memory.
__global__ void __launch_bounds__(kGradThreads)
    TernaryWeightGradientKernel(const WeightGradientDeviceArgs args) {
  GradientSums sums = {};
  GradientSteps<kWeightGradStageBytes>(
      (args.m + kGradStep - 1) / kGradStep,
      [&](uint8_t* stage, int step) { WeightGradFill(args, stage, step); },
      [&](const uint8_t* stage) { WeightGradMultiply(stage, sums); });
  GradientWrite(args.dw, args.n, args.k, args.lddw, 1.0f, false, sums);
}

}  // namespace tern::kernels
