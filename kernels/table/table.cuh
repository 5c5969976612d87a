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
#include "kernels/fp8/fp8.cuh"
#include "kernels/table/table.h"

namespace tern::kernels {

inline constexpr int kTableRows = kRowThreads / static_cast<int>(kLanes);  // Of a block

template <TableType kType>
TERN_DEVICE float TableCode(const TableView& table, int64_t at) {
  if constexpr (kType == TableType::kF32) return static_cast<const float*>(table.values)[at];
  if constexpr (kType == TableType::kF16)
    return FloatFromHalf(static_cast<const uint16_t*>(table.values)[at]);
  if constexpr (kType == TableType::kBf16)
    return FloatFromBfloat(static_cast<const uint16_t*>(table.values)[at]);
  if constexpr (kType == TableType::kInt8)
    return static_cast<float>(static_cast<const int8_t*>(table.values)[at]);
  return FloatFromE4m3(static_cast<const uint8_t*>(table.values)[at]);
}

// What turns the codes of a block into weights.
struct TableScale {
  float scale, shift;
  bool shifted;
};

// Of a row and a block of columns.
TERN_DEVICE TableScale TableScaleOf(const TableView& table, int64_t row, int block) {
  const int blocks = (table.k + table.block_k - 1) / table.block_k;
  const int64_t at = row / table.block_n * blocks + block;
  const bool shifted = table.shifts != nullptr;
  return {table.scales[at], shifted ? table.shifts[at] : 0.0f, shifted};
}

template <TableType kType>
TERN_DEVICE float TableWeight(float code, const TableScale& scale) {
  if constexpr (kType != TableType::kInt8 && kType != TableType::kE4m3) return code;
  const float product = scale.scale * code;
  return scale.shifted ? product + scale.shift : product;
}

template <TableType kType>
TERN_DEVICE float TableValue(const TableView& table, int64_t row, int column) {
  constexpr bool kScaled = kType == TableType::kInt8 || kType == TableType::kE4m3;
  TableScale scale = {};
  if constexpr (kScaled) scale = TableScaleOf(table, row, column / table.block_k);
  return TableWeight<kType>(TableCode<kType>(table, row * table.k + column), scale);
}

// out[m, k] = rows ids[m] of the table. Grid: m blocks of kRowThreads.
template <TableType kType>
__global__ void __launch_bounds__(kRowThreads)
    GatherRowsKernel(const TableView table, const int32_t* ids, float* out) {
  const int64_t row = blockIdx.x;
  for (int i = static_cast<int>(threadIdx.x); i < table.k; i += kRowThreads)
    out[row * table.k + i] = TableValue<kType>(table, ids[row], i);
}

// out[n, k] = the values as fp16. Grid: n blocks of kRowThreads.
template <TableType kType>
__global__ void __launch_bounds__(kRowThreads)
    ExpandTableKernel(const TableView table, uint16_t* out) {
  const int64_t row = blockIdx.x;
  for (int i = static_cast<int>(threadIdx.x); i < table.k; i += kRowThreads)
    out[row * table.k + i] = HalfFromFloat(TableValue<kType>(table, row, i));
}

// sum + x[i] w[row][i] for the columns i = begin + lane, + 16, ... below end, which share a scale.
template <TableType kType>
TERN_DEVICE float AddColumns(const TableView& table, const float* x, int64_t row, int begin,
                             int end, const TableScale& scale, float sum) {
  const int lane = static_cast<int>(threadIdx.x) % static_cast<int>(kLanes);
  for (int i = begin + lane; i < end; i += static_cast<int>(kLanes))
    sum = fmaf(x[i], TableWeight<kType>(TableCode<kType>(table, row * table.k + i), scale), sum);
  return sum;
}

// y[m, n] = x[m, k] table^T. Grid: (ceil(n / kTableRows), m) blocks of kRowThreads.
template <TableType kType>
__global__ void __launch_bounds__(kRowThreads)
    TableProductKernel(const TableView table, const float* x, float* y) {
  const int lane = static_cast<int>(threadIdx.x) % static_cast<int>(kLanes);
  const int slot = static_cast<int>(threadIdx.x) / static_cast<int>(kLanes);
  const int64_t m = blockIdx.y;
  const int row = static_cast<int>(blockIdx.x) * kTableRows + slot;
  const float* x_row = x + m * table.k;
  float sum = 0.0f;
  if (row < table.n) {
    if constexpr (kType == TableType::kInt8 || kType == TableType::kE4m3) {
      int block = 0;
      for (int begin = 0; begin < table.k; begin += table.block_k, ++block) {
        const int end = table.k - begin < table.block_k ? table.k : begin + table.block_k;
        sum =
            AddColumns<kType>(table, x_row, row, begin, end, TableScaleOf(table, row, block), sum);
      }
    } else {
      sum = AddColumns<kType>(table, x_row, row, 0, table.k, TableScale{}, sum);
    }
  }
  TERN_UNROLL
  for (unsigned half = kLanes / 2; half > 0; half /= 2) sum += simt::ShuffleDownFloat(sum, half);
  if (lane == 0 && row < table.n) y[m * table.n + row] = sum;
}

}  // namespace tern::kernels
