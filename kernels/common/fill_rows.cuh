// Copies a tile of rows into a stage of shared memory with cp.async: what the tensor-core products
// share. Rows beyond the matrix and bytes beyond a row arrive as zeros and are not read.
#pragma once

#include <cstdint>

#include "kernels/simt/intrin_tensor.h"

namespace tern::kernels {

// Where the rows are: `rows` of them, `stride` bytes apart (a multiple of 16), `row_bytes` long (a
// multiple of 16), from a base aligned to 16.
struct RowSource {
  const void* base;
  int rows;
  int row_bytes;
  int64_t stride;
};

// Rows row0 .. row0 + kRows - 1, of each kChunks chunks of 16 bytes from byte `at` on. In shared
// memory a row takes 16 * kChunks bytes; place(chunk, row) is where a chunk goes, in bytes from the
// row's first. place may depend on the row modulo 8 only.
template <int kThreads, int kRows, int kChunks, class Place>
TERN_DEVICE void FillRows(uint8_t* stage, const RowSource& source, int row0, int at,
                          const Place& place) {
  constexpr int kRowsATime = kThreads / kChunks;
  static_assert(kThreads % kChunks == 0 && kRowsATime % 8 == 0 && kRows % kRowsATime == 0);
  const int chunk = static_cast<int>(threadIdx.x) % kChunks;
  const int first = static_cast<int>(threadIdx.x) / kChunks;
  const auto* base = static_cast<const uint8_t*>(source.base);
  const uint8_t* from = base + (row0 + first) * source.stride + (at + 16 * chunk);
  const bool inside = at + 16 * chunk < source.row_bytes;
  uint8_t* to = stage + first * 16 * kChunks + place(chunk, first);
  TERN_UNROLL
  for (int i = 0; i < kRows; i += kRowsATime) {
    const bool valid = inside && row0 + first + i < source.rows;
    simt::CopyAsync16(to + i * 16 * kChunks, valid ? from + i * source.stride : base, valid);
  }
}

}  // namespace tern::kernels
