// See int4_matrix.h.
#include "engine/int4_matrix.h"

#include <algorithm>
#include <cstring>

#include "formats/half.h"

namespace tern::engine {

using kernels::kW4Group;
using kernels::W4Groups;
using kernels::W4RowBytes;

int64_t Int4Matrix::Bytes() const {
  return static_cast<int64_t>(codes.size() + scales_GN.size() * 2 + zeros_GN.size());
}

void Int4Matrix::Decode(int64_t row, float* out) const {
  std::vector<uint8_t> values(static_cast<size_t>(k));
  kernels::UnpackW4Row(codes.data() + row * W4RowBytes(k), k, values.data());
  for (int64_t i = 0; i < k; ++i) {
    const auto at = static_cast<size_t>(i / kW4Group * n + row);
    const int zero = zeros_GN.empty() ? 8 : zeros_GN[at];
    const float scale = scale_type == kernels::Float16Type::kF16
                            ? formats::Fp16ToFp32(scales_GN[at])
                            : formats::Bf16ToFp32(scales_GN[at]);
    out[i] = static_cast<float>(values[static_cast<size_t>(i)] - zero) * scale;
  }
}

std::optional<Int4Matrix> RepackInt4(const ScaledMatrix& m) {
  const bool whole_groups = m.block_k % kW4Group == 0 || m.block_k >= m.k;
  if (m.code != ScaledCode::kInt4 || m.scale_type == ScaleType::kF32 || m.block_n != 1 ||
      !whole_groups || m.input.code != InputRounding::Code::kNone)
    return std::nullopt;
  Int4Matrix out;
  out.n = m.n;
  out.k = m.k;
  out.scale_type =
      m.scale_type == ScaleType::kF16 ? kernels::Float16Type::kF16 : kernels::Float16Type::kBf16;
  const int64_t groups = W4Groups(m.k);
  out.codes.resize(static_cast<size_t>(m.n * W4RowBytes(m.k)));
  out.scales_GN.resize(static_cast<size_t>(groups * m.n));
  if (!m.zero_points.empty()) out.zeros_GN.resize(static_cast<size_t>(groups * m.n));
  const auto* words = reinterpret_cast<const uint8_t*>(m.codes.data());
  for (int64_t row = 0; row < m.n; ++row) {
    kernels::PackW4Words(words + row * m.CodeRowBytes(), m.k,
                         out.codes.data() + row * W4RowBytes(m.k));
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t block = group * kW4Group / m.block_k;
      const auto at = static_cast<size_t>(group * m.n + row);
      std::memcpy(&out.scales_GN[at], m.scales.data() + 2 * m.ScaleIndex(row, block), 2);
      if (!m.zero_points.empty()) out.zeros_GN[at] = static_cast<uint8_t>(m.Int4Offset(row, block));
    }
  }
  return out;
}

}  // namespace tern::engine
