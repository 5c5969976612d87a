// Where a GPU's kernels find a row's tokens in the cache.
#pragma once

#include <cstdint>

#include "kernels/attention/attention.h"
#include "kernels/simt/intrin.h"

namespace tern::kernels {

TERN_DEVICE const int32_t* BlockTableOfRow(const KvRows& rows, int64_t row) {
  const int64_t sequence = rows.sequences == nullptr ? 0 : rows.sequences[row];
  return rows.block_tables + sequence * rows.block_table_stride;
}

}  // namespace tern::kernels
