// Rotary position embedding (Su et al., arXiv 2104.09864) in the rotate-half form that Hugging Face
// models use: element i of a head is paired with element i + E/2. In place, fp32. Every product is
// rounded once (no FMA), so that all instruction sets give the same bits.
//   y[i] = x[i] cos - x[i + E/2] sin,  y[i + E/2] = x[i + E/2] cos + x[i] sin
#pragma once

#include <cstdint>
#include <span>

#include "base/parallel.h"

namespace tern::kernels {

enum class RopeDirection {
  kForward,
  kInverse,  // Rotates by the negative angle: the backward pass.
};

// cos_table, sin_table: [context, head_width / 2] of the angles position * theta^(-2i /
// head_width) / factors[i], computed in fp64. factors: [head_width / 2], or empty: all 1. REQUIRES:
// head_width even.
void RopeTable(int64_t context, int64_t head_width, double theta, std::span<const double> factors,
               float* cos_table, float* sin_table);

// x: [rows, heads, head_width], `ldx` elements from row to row. positions: [rows], each in [0,
// context).
void Rope(float* x, int64_t rows, int64_t heads, int64_t head_width, int64_t ldx,
          const int32_t* positions, const float* cos_table, const float* sin_table,
          RopeDirection direction, const ParallelFor& parallel);

}  // namespace tern::kernels
