// See block_matrix.h.
#include "engine/block_matrix.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "arch/gguf_names.h"
#include "base/error.h"
#include "base/file.h"
#include "base/huge_pages.h"
#include "engine/weight_table.h"

namespace tern::engine {

const uint8_t* BlockMatrix::Row(int64_t row) const {
  const int64_t at = paired_head_dim > 0 ? PermutedRow(row, paired_head_dim) : row;
  return reinterpret_cast<const uint8_t*>(bytes.data()) + at * formats::RowBytes(type, k);
}

void BlockMatrix::Decode(int64_t row, float* out) const {
  formats::DecodeRow(type, Row(row), k, out);
}

std::optional<kernels::CodeType> CodeOf(formats::GgmlType type) {
  using formats::GgmlType;
  using kernels::CodeType;
  switch (type) {
    case GgmlType::kQ4_0:
      return CodeType::kQ4_0;
    case GgmlType::kQ4_1:
      return CodeType::kQ4_1;
    case GgmlType::kQ5_0:
      return CodeType::kQ5_0;
    case GgmlType::kQ5_1:
      return CodeType::kQ5_1;
    case GgmlType::kQ8_0:
      return CodeType::kQ8_0;
    case GgmlType::kQ2_K:
      return CodeType::kQ2K;
    case GgmlType::kQ3_K:
      return CodeType::kQ3K;
    case GgmlType::kQ4_K:
      return CodeType::kQ4K;
    case GgmlType::kQ5_K:
      return CodeType::kQ5K;
    case GgmlType::kQ6_K:
      return CodeType::kQ6K;
    default:
      return std::nullopt;
  }
}

void MoveToHugePages(BlockMatrix* matrix) {
  const std::span<const std::byte> file = matrix->bytes;
  const bool mapped = matrix->mapped;
  auto copy = std::make_shared<HugePageVector<std::byte>>();
  copy->reserve(file.size());
  // In pieces, so that a large table is never in memory twice.
  constexpr size_t kPiece = 4 << 20;
  for (size_t at = 0; at < file.size(); at += kPiece) {
    const auto piece = file.subspan(at, std::min(kPiece, file.size() - at));
    copy->insert(copy->end(), piece.begin(), piece.end());
    if (mapped) DropMappedPages(piece);
  }
  matrix->bytes = *copy;
  matrix->owner = std::move(copy);  // Last: the old owner may unmap the file
  matrix->mapped = false;
}

void AlignHalves(BlockMatrix* matrix) {
  const bool halves =
      matrix->type == formats::GgmlType::kF16 || matrix->type == formats::GgmlType::kBf16;
  if (!halves || reinterpret_cast<uintptr_t>(matrix->bytes.data()) % 2 == 0) return;
  const auto copy =
      std::make_shared<std::vector<std::byte>>(matrix->bytes.begin(), matrix->bytes.end());
  matrix->bytes = *copy;
  matrix->owner = copy;
  matrix->mapped = false;
}

void CheckFiniteRows(const BlockMatrix& matrix, int64_t first, int64_t count,
                     const std::string& where) {
  TERN_CHECK_FORMAT(formats::IsReadAsFloats(matrix.type), where, " is ",
                    formats::InfoOf(matrix.type).name, ", which is not read as floats here");
  // Rows that follow each other, at once
  const bool straight = matrix.paired_head_dim == 0;
  if (straight &&
      formats::FindNonFinite(matrix.type, matrix.Row(first), count * matrix.k) == count * matrix.k)
    return;
  for (int64_t n = first; n < first + count; ++n) {
    if (formats::FindNonFinite(matrix.type, matrix.Row(n), matrix.k) == matrix.k) continue;
    std::vector<float> row(static_cast<size_t>(matrix.k));
    matrix.Decode(n, row.data());
    CheckFinite(row, StrCat(where, ", row ", n, ","));
  }
}

void CheckFinite(const BlockMatrix& matrix, const std::string& where) {
  constexpr int64_t kPiece = 32 << 20;  // Of a mapped file in memory at once
  const int64_t rows = std::max<int64_t>(1, kPiece / formats::RowBytes(matrix.type, matrix.k));
  for (int64_t n = 0; n < matrix.n; n += rows) {
    CheckFiniteRows(matrix, n, std::min(rows, matrix.n - n), where);
    if (matrix.mapped) DropMappedPages(matrix.bytes);
  }
}

}  // namespace tern::engine
