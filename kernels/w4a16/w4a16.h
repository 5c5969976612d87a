// 4-bit weights in groups of 128 along k, floating-point activations:
//   y[m][n] = sum_k x[m][k] * (code[n][k] - zero[n][k / 128]) * scale[n][k / 128]
// with codes 0..15, a scale (fp16 or bf16) a row and group, and a zero point that is 8 everywhere
// (symmetric, "offset 8") or 0..15 a row and group (asymmetric). GPTQ, AWQ and compressed-tensors
// files with group 128 hold these numbers; their own orders are unpacked by the formats.
//
// Numbers on the CPU, in fp32, the same on every instruction set and for every number of threads
// and tokens: 16 lanes; lane 4 t + r of a group takes k = 32 r + 8 t + e of it in the order e =
// 0..7,
//   part = fma(x, float(code - zero), part) from 0, then total = fma(scale, part, total)
// group after group, and the lanes are joined by halves (common/lanes.h). Products with one
// rounding (fma) are meant: code - zero is exact, and every processor of the fast paths has them. k
// beyond the matrix counts as x = 0. Numbers on a GPU (w4a16_cuda.h): fp16 or bf16 activations,
// code - zero exact in their type, fp32 sums in the tensor core's order; equal to the formula up to
// the tolerance that tests/simt derives.
#pragma once

#include <cstdint>

#include "base/parallel.h"

namespace tern::kernels {

inline constexpr int64_t kW4Group = 128;
inline constexpr int64_t kW4GroupBytes = 64;

enum class Float16Type { kF16, kBf16 };

constexpr int64_t W4Groups(int64_t k) { return (k + kW4Group - 1) / kW4Group; }
constexpr int64_t W4RowBytes(int64_t k) { return W4Groups(k) * kW4GroupBytes; }

// The packed layout, row-major, a group 64 bytes = 16 little-endian words. Word 4 t + r holds
// k = 32 r + 8 t + e, e = 0..7, of the group, in the four bits at 4 * (e / 2 + 4 * (e % 2)):
//   word      0 (t 0, r 0)  1 (t 0, r 1)  2       3       4 (t 1, r 0) ...
//   k         0..7          32..39        64..71  96..103  8..15
//   bits      0-3: e 0   4-7: e 2   8-11: e 4   12-15: e 6   16-19: e 1   20-23: e 3  ...
// A lane t of a tensor-core fragment takes 16 bytes with one load: its words r = 0..3 meet 16-byte
// chunks of activations. `(word >> 4 p) & 0x000F000F` is two neighbours along k, one in each half.
// A vector of 16 words is the 16 lanes of the CPU's sum. `codes`: k values 0..15; what lies beyond
// k in the last group is packed as 8.
void PackW4Row(const uint8_t* codes, int64_t k, uint8_t* packed);
// The same from codes that lie eight to a little-endian 32-bit word, lowest bits first, as
// compressed-tensors has them: a word stays a word, its bits and its place change.
void PackW4Words(const uint8_t* words, int64_t k, uint8_t* packed);
void UnpackW4Row(const uint8_t* packed, int64_t k, uint8_t* codes);

struct W4A16Args {
  const uint8_t* w = nullptr;           // [n, W4RowBytes(k)]
  const uint16_t* scales_GN = nullptr;  // [W4Groups(k), n] bits of `scale_type`
  const uint8_t* zeros_GN = nullptr;    // [W4Groups(k), n] values 0..15, or null: 8
  Float16Type scale_type = Float16Type::kF16;
  const float* x = nullptr;  // [m, ldx], ldx >= k
  float* y = nullptr;        // [m, ldy]
  int64_t m = 0, n = 0, k = 0, ldx = 0, ldy = 0;
};

// Made for 1 to 8 tokens; more are taken 8 at a time, each time reading the weights again.
void W4A16Gemv(const W4A16Args& args, const ParallelFor& parallel);
// The same numbers, one element after the other: the oracle.
void W4A16GemvRef(const W4A16Args& args);

}  // namespace tern::kernels
