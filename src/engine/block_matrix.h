// A matrix in one of GGUF's types for floats (block_codec.h), kept as the file has it: the rows
// stay in the file's mapping, and one row is decoded to fp32 whenever it is used. So a model takes
// the memory of its file, not 4 bytes a weight.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "formats/block_codec.h"
#include "kernels/code_gemm/code_gemm.h"

namespace tern::engine {

struct BlockMatrix {
  formats::GgmlType type = formats::GgmlType::kF32;
  std::span<const std::byte> bytes;   // n rows of RowBytes(type, k), without a gap
  std::shared_ptr<const void> owner;  // Of the memory behind `bytes`
  int64_t n = 0, k = 0;
  bool mapped = false;          // `bytes` lie in a mapping of a file
  int64_t paired_head_dim = 0;  // Above 0: rows lie in the order of PermutedRow (gguf_names.h)
  std::string unchecked = {};   // Where it is, if nobody has looked at its values (ModelSource)

  // The model's row, out[k]. Costs one pass over RowBytes(type, k) bytes.
  void Decode(int64_t row, float* out) const;
  // Of the row in the file.
  const uint8_t* Row(int64_t row) const;
};

// The codes of a type whose weights are codes with scales: Q4_0 to Q8_0 and the K types.
std::optional<kernels::CodeType> CodeOf(formats::GgmlType type);

// Copies the rows into huge pages (base/huge_pages.h), and gives back the memory of a mapped file's
// pages.
void MoveToHugePages(BlockMatrix* matrix);

// Copies the numbers of an F16 or BF16 matrix that lies at an odd address, which is rare: kernels
// may want numbers where numbers can be.
void AlignHalves(BlockMatrix* matrix);

// Throws FormatError ("where holds inf at 70") when a weight is NaN or Inf, or the type is not read
// as floats. Looks at the blocks' scales, so it needs no memory.
void CheckFinite(const BlockMatrix& matrix, const std::string& where);
// The same of rows [first, first + count), whose pages stay in memory.
void CheckFiniteRows(const BlockMatrix& matrix, int64_t first, int64_t count,
                     const std::string& where);

}  // namespace tern::engine
