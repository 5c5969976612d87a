// 4-bit integers with a 16-bit scale for 128 weights of a row, in the order of kernels/w4a16: what
// ScaledMatrix (scaled_matrix.h) becomes when its scales allow it. Repacked once, multiplied in
// place, by fp32 activations. The weights are the same numbers; a product adds up group by group
// (the order is in kernels/w4a16/w4a16.h).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/huge_pages.h"
#include "engine/scaled_matrix.h"
#include "kernels/w4a16/w4a16.h"

namespace tern::engine {

struct Int4Matrix {
  HugePageVector<uint8_t> codes;       // [n, W4RowBytes(k)]
  HugePageVector<uint16_t> scales_GN;  // [W4Groups(k), n] bits of scale_type
  HugePageVector<uint8_t> zeros_GN;    // [W4Groups(k), n] values 0..15, or empty: 8
  kernels::Float16Type scale_type = kernels::Float16Type::kF16;
  int64_t n = 0, k = 0;

  // out[k] = (code - zero) * scale in fp32, exact.
  void Decode(int64_t row, float* out) const;
  int64_t Bytes() const;
};

// Nothing when the matrix is not of 4-bit integers, its scales are fp32, or one is of less than 128
// weights of a row (but for a shorter row). REQUIRES: the sizes of its spans are those of n and k.
std::optional<Int4Matrix> RepackInt4(const ScaledMatrix& matrix);

}  // namespace tern::engine
