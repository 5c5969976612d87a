// Host launchers of tables on a GPU.
#include "kernels/simt/launch.h"
#include "kernels/table/table.cuh"
#include "kernels/table/table_cuda.h"

namespace tern::kernels {
namespace {

// launch.operator()<type>() with the table's type.
template <class Launch>
const char* ForType(const TableView& table, const Launch& launch) {
  switch (table.type) {
    case TableType::kF32:
      return launch.template operator()<TableType::kF32>();
    case TableType::kF16:
      return launch.template operator()<TableType::kF16>();
    case TableType::kBf16:
      return launch.template operator()<TableType::kBf16>();
    case TableType::kInt8:
      return launch.template operator()<TableType::kInt8>();
    case TableType::kE4m3:
      return launch.template operator()<TableType::kE4m3>();
  }
  return "a table of no type";
}

}  // namespace

const char* LaunchGatherRows(const TableView& table, const int32_t* ids, int64_t m, float* out,
                             void* stream) {
  return ForType(table, [&]<TableType kType>() {
    return simt::LaunchKernel(GatherRowsKernel<kType>, {static_cast<unsigned>(m)}, kRowThreads,
                              stream, table, ids, out);
  });
}

const char* LaunchTableProduct(const TableView& table, const float* x, int64_t m, float* y,
                               void* stream) {
  if (table.IsCodes() && table.block_k < table.k && table.block_k % static_cast<int>(kLanes) != 0)
    return "a table's scales must be of a multiple of 16 columns";
  const simt::Grid grid{static_cast<unsigned>((table.n + kTableRows - 1) / kTableRows),
                        static_cast<unsigned>(m)};
  return ForType(table, [&]<TableType kType>() {
    return simt::LaunchKernel(TableProductKernel<kType>, grid, kRowThreads, stream, table, x, y);
  });
}

const char* LaunchExpandTable(const TableView& table, uint16_t* out, void* stream) {
  return ForType(table, [&]<TableType kType>() {
    return simt::LaunchKernel(ExpandTableKernel<kType>, {static_cast<unsigned>(table.n)},
                              kRowThreads, stream, table, out);
  });
}

}  // namespace tern::kernels
