// Rows of a table on a GPU, gathered or multiplied. The product has the order of float_gemm.h (16
// lanes with fused multiply-adds, joined pairwise), so it is equal to the CPU's bit for bit.
//
//   16 threads a table row, 16 rows a block: thread l takes the columns l, l + 16, ...: neighbours
//   read neighbouring elements; shuffles join the 16 sums of a row
#pragma once

#include <cstdint>

#include "kernels/common/half.h"
#include "kernels/common/lanes.h"
#include "kernels/common/row.cuh"
#include "kernels/table/table.h"

namespace tern::kernels {

inline constexpr int kTableRows = kRowThreads / static_cast<int>(kLanes);  // Of a block

TERN_DEVICE float TableValue(const TableView& table, int64_t row, int column) {
  const int64_t at = row * table.k + column;
  if (table.type == TableType::kF16)
    return FloatFromHalf(static_cast<const uint16_t*>(table.values)[at]);
  if (table.type == TableType::kF32) return static_cast<const float*>(table.values)[at];
  const int runs = (table.k + kTableRun - 1) / kTableRun;
  return table.scales[row * runs + column / kTableRun] *
         static_cast<float>(static_cast<const int8_t*>(table.values)[at]);
}

// out[m, k] = rows ids[m] of the table. Grid: m blocks of kRowThreads.
__global__ void __launch_bounds__(kRowThreads)
    GatherRowsKernel(const TableView table, const int32_t* ids, float* out) {
  const int64_t row = blockIdx.x;
  for (int i = static_cast<int>(threadIdx.x); i < table.k; i += kRowThreads)
    out[row * table.k + i] = TableValue(table, ids[row], i);
}

// y[m, n] = x[m, k] table^T. Grid: (ceil(n / kTableRows), m) blocks of kRowThreads.
__global__ void __launch_bounds__(kRowThreads)
    TableProductKernel(const TableView table, const float* x, float* y) {
  const int lane = static_cast<int>(threadIdx.x) % static_cast<int>(kLanes);
  const int slot = static_cast<int>(threadIdx.x) / static_cast<int>(kLanes);
  const int64_t m = blockIdx.y;
  const int row = static_cast<int>(blockIdx.x) * kTableRows + slot;
  float sum = 0.0f;
  if (row < table.n) {
    for (int i = lane; i < table.k; i += static_cast<int>(kLanes))
      sum = fmaf(x[m * table.k + i], TableValue(table, row, i), sum);
  }
  TERN_UNROLL
  for (unsigned half = kLanes / 2; half > 0; half /= 2) sum += simt::ShuffleDownFloat(sum, half);
  if (lane == 0 && row < table.n) y[m * table.n + row] = sum;
}

}  // namespace tern::kernels
