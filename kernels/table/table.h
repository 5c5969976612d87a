// A table of rows in device memory (embedding, head): fp32, fp16, or int8 with one scale a run of
// kTableRun columns (a Q8_0 tensor with its scales apart, so that loads stay aligned; its values
// d * q are exact in fp32). Rows are gathered, and multiplied with vectors in the engine's order.
#pragma once

#include <cstdint>

namespace tern::kernels {

inline constexpr int kTableRun = 32;

enum class TableType { kF32, kF16, kInt8Run };

struct TableView {
  TableType type = TableType::kF32;
  const void* values = nullptr;   // [n, k] of float, uint16_t or int8_t
  const float* scales = nullptr;  // [n, ceil(k / kTableRun)], only for kInt8Run
  int n = 0, k = 0;
};

}  // namespace tern::kernels
