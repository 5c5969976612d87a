// Products of fp32 activations with matrices kept in the block codes of GGUF: a weight is decoded
// in registers where it is used, never as a matrix, so a token moves the bytes of the file and no
// more.
//
// y[m][n] = sum_k x[m][k] w[n][k], w the values that ggml's decoders give
// (docs/formats/block_codecs.md), bit for bit; the sum in the order of common/lanes.h: lane l takes
// the elements l, l + 16, ... with one fused multiply-add each (fp32, rounded once), then the lanes
// are joined pairwise. So a result has the same bits for a coded matrix and for its values as F32,
// for one token and for many, on any number of threads and every instruction set.
#pragma once

#include <cstdint>
#include <functional>

#include "base/parallel.h"

namespace tern::kernels {

// Codes that are multiplied in place. kInt8, kE4m3 and kInt4 (0..15, the lower half of a byte
// first) have their scales elsewhere. kRows: everything else, through `decode_row`.
enum class FloatCode { kF32, kF16, kBf16, kQ8_0, kInt8, kE4m3, kInt4, kRows };

struct FloatGemmArgs {
  FloatCode code = FloatCode::kRows;
  const uint8_t* w = nullptr;  // Row n at w + n * row_bytes; not used by kRows
  int64_t row_bytes = 0;
  // Row n as k floats: the decoder of the type. Used by kRows, and where an instruction set has no
  // code of its own.
  std::function<void(int64_t n, float* out)> decode_row;
  // Of the codes with scales elsewhere: a weight is scale * code (kInt4: scale * (code - zero)),
  // rounded once. Gives row n's ceil(k / block_k) scales and, for kInt4, zeros.
  std::function<void(int64_t n, float* scales, float* zeros)> block_scales;
  int64_t block_k = 0;  // A multiple of 32, or at least k
  // Above 0: the rows lie as llama.cpp keeps those of q and k, in each head of so many rows the two
  // halves interleaved: row 2 j + h of a head is row j + h head_dim / 2 of the model. 0: in the
  // model's order.
  int64_t paired_head_dim = 0;
  const float* x = nullptr;  // [m, k], row stride ldx
  float* y = nullptr;        // [m, n], row stride ldy; must not overlap x
  int64_t m = 0, n = 0, k = 0, ldx = 0, ldy = 0;
};

// REQUIRES: k a multiple of the code's block (1, 32 or 256).
void FloatGemm(const FloatGemmArgs& args, const ParallelFor& parallel);

}  // namespace tern::kernels
