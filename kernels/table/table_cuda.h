// The C++ face of tables in libtern_kernels_cuda.so, for code that compiles without the toolkit.
// Never throws. All pointers are device pointers; `stream` is a cudaStream_t or null. Launchers
// return as soon as the kernel is queued: an error text, or null when all is well.
#pragma once

#include <cstdint>

#include "kernels/table/table.h"

namespace tern::kernels {

// out[m, k] = rows ids[m] of the table. REQUIRES: ids within [0, n).
const char* LaunchGatherRows(const TableView& table, const int32_t* ids, int64_t m, float* out,
                             void* stream);
// y[m, n] = x[m, k] table^T. Reads the table once a row of x.
const char* LaunchTableProduct(const TableView& table, const float* x, int64_t m, float* y,
                               void* stream);
// out[n, k] = the table's values as fp16, rounded to nearest.
const char* LaunchExpandTable(const TableView& table, uint16_t* out, void* stream);

}  // namespace tern::kernels
