// A matrix of rows in device memory (embedding, head, linear layers that are not ternary): floats, or
// codes with a scale, and maybe a shift, a block of block_n rows and block_k columns:
//   w = scale * code + shift        fp32, each operation rounded once: what the file's decoder gives
// Q8_0, Q4_0, Q6_K ... and integer folders are kInt8, FP8 folders kE4m3. Codes and scales lie apart,
// so that loads stay aligned. Rows are gathered, multiplied with vectors in the engine's order, and
// expanded to fp16 for products of many rows (kernels/gemm).
#pragma once

#include <cstdint>

namespace tern::kernels {

enum class TableType { kF32, kF16, kBf16, kInt8, kE4m3 };

struct TableView {
  TableType type = TableType::kF32;
  const void* values = nullptr;   // [n, k] of float, uint16_t, int8_t or uint8_t
  const float* scales = nullptr;  // [ceil(n / block_n), ceil(k / block_k)]; kInt8 and kE4m3
  const float* shifts = nullptr;  // The same, or null: none; only kInt8
  int n = 0, k = 0;
  int block_n = 1, block_k = 1;  // block_k: a multiple of 16, or at least k

  bool IsCodes() const { return type == TableType::kInt8 || type == TableType::kE4m3; }
};

}  // namespace tern::kernels
