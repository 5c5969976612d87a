// Host launchers of tables on a GPU.
#include "kernels/simt/launch.h"
#include "kernels/table/table.cuh"
#include "kernels/table/table_cuda.h"

namespace tern::kernels {

const char* LaunchGatherRows(const TableView& table, const int32_t* ids, int64_t m, float* out,
                             void* stream) {
  if (m == 0) return nullptr;
  return simt::LaunchKernel(GatherRowsKernel, {static_cast<unsigned>(m)}, kRowThreads, stream,
                            table, ids, out);
}

const char* LaunchTableProduct(const TableView& table, const float* x, int64_t m, float* y,
                               void* stream) {
  if (m == 0 || table.n == 0) return nullptr;
  const simt::Grid grid{static_cast<unsigned>((table.n + kTableRows - 1) / kTableRows),
                        static_cast<unsigned>(m)};
  return simt::LaunchKernel(TableProductKernel, grid, kRowThreads, stream, table, x, y);
}

}  // namespace tern::kernels
