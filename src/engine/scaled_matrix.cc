// See scaled_matrix.h.
#include "engine/scaled_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "engine/weight_table.h"
#include "formats/half.h"
#include "kernels/fp8/fp8.h"

namespace tern::engine {
namespace {

constexpr float kLargestCode = 448;  // Of FP8; the integers' are smaller
constexpr int64_t kPerWord = 8;      // 4-bit codes in a 32-bit word

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Number `index` of 4 bits: word by word, lowest bits first, is byte by byte, too.
int Nibble(const uint8_t* bytes, int64_t index) { return bytes[index / 2] >> (index % 2 * 4) & 15; }

}  // namespace

kernels::RoundInputsArgs RoundInputsArgsOf(const InputRounding& rounding, const float* x, int64_t m,
                                           int64_t k, float* out) {
  kernels::RoundInputsArgs args;
  args.x = x;
  args.out = out;
  args.m = m;
  args.k = k;
  args.group = rounding.group;
  args.scale = rounding.scale;
  args.fp8 = rounding.code == InputRounding::Code::kFp8E4m3;
  return args;
}

void RoundInputs(const InputRounding& rounding, const float* x, int64_t m, int64_t k, float* out,
                 const ParallelFor& parallel) {
  kernels::RoundInputs(RoundInputsArgsOf(rounding, x, m, k, out), parallel);
}

int64_t ScaledMatrix::CodeRowBytes() const {
  return code == ScaledCode::kInt4 ? 4 * CeilDiv(k, kPerWord) : k;
}
int64_t ScaledMatrix::ScaleBytes() const {
  return CeilDiv(n, block_n) * CeilDiv(k, block_k) * (scale_type == ScaleType::kF32 ? 4 : 2);
}
int64_t ScaledMatrix::ZeroPointBytes() const {
  return 4 * CeilDiv(n, kPerWord) * CeilDiv(k, block_k);
}

int64_t ScaledMatrix::ScaleIndex(int64_t row, int64_t block) const {
  return row / block_n * CeilDiv(k, block_k) + block;
}

int ScaledMatrix::Int4Offset(int64_t row, int64_t block) const {
  if (zero_points.empty()) return 8;
  const auto* word = reinterpret_cast<const uint8_t*>(zero_points.data()) +
                     4 * (row / kPerWord * CeilDiv(k, block_k) + block);
  return Nibble(word, row % kPerWord);
}

float ScaledMatrix::Scale(int64_t index) const {
  const std::byte* at = scales.data() + index * (scale_type == ScaleType::kF32 ? 4 : 2);
  if (scale_type == ScaleType::kF32) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return scale_type == ScaleType::kF16 ? formats::Fp16ToFp32(bits) : formats::Bf16ToFp32(bits);
}

void ScaledMatrix::Codes(int64_t row, int8_t* out) const {
  const auto* q = reinterpret_cast<const uint8_t*>(codes.data()) + row * CodeRowBytes();
  for (int64_t i = 0; i < k; ++i)
    out[i] =
        static_cast<int8_t>(code == ScaledCode::kInt4 ? Nibble(q, i) - Int4Offset(row, i / block_k)
                                                      : static_cast<int8_t>(q[i]));
}

void ScaledMatrix::BlockScales(int64_t row, float* scale, float* offset) const {
  for (int64_t block = 0; block < CeilDiv(k, block_k); ++block) {
    scale[block] = Scale(ScaleIndex(row, block));
    offset[block] = code == ScaledCode::kInt4 ? static_cast<float>(Int4Offset(row, block)) : 0.0f;
  }
}

void ScaledMatrix::Decode(int64_t row, float* out) const {
  const auto* q = reinterpret_cast<const uint8_t*>(codes.data()) + row * CodeRowBytes();
  const int64_t groups = CeilDiv(k, block_k);
  for (int64_t group = 0; group < groups; ++group) {
    const float scale = Scale(ScaleIndex(row, group));
    const int64_t begin = group * block_k, end = std::min(k, begin + block_k);
    switch (code) {
      case ScaledCode::kInt4: {
        // z + 8 is taken from q + 8: the eights fall away.
        const int offset = Int4Offset(row, group);
        for (int64_t i = begin; i < end; ++i)
          out[i] = static_cast<float>(Nibble(q, i) - offset) * scale;
        break;
      }
      case ScaledCode::kInt8:
        for (int64_t i = begin; i < end; ++i)
          out[i] = static_cast<float>(static_cast<int8_t>(q[i])) * scale;
        break;
      case ScaledCode::kFp8E4m3:
        kernels::E4M3ToFp32(q + begin, end - begin, out + begin, SerialFor);
        for (int64_t i = begin; i < end; ++i) out[i] *= scale;
        break;
    }
  }
}

void CheckFinite(const ScaledMatrix& m, const std::string& where) {
  const int64_t groups = CeilDiv(m.k, m.block_k), count = CeilDiv(m.n, m.block_n) * groups;
  for (int64_t i = 0; i < count; ++i) {
    TERN_CHECK_FORMAT(std::isfinite(m.Scale(i) * kLargestCode), where, ": scale ", i, " is ",
                      m.Scale(i), "; the file is damaged");
  }
  if (m.code != ScaledCode::kFp8E4m3) return;
  const auto* codes = reinterpret_cast<const uint8_t*>(m.codes.data());
  std::vector<float> row(static_cast<size_t>(m.k));
  for (int64_t n = 0; n < m.n; ++n) {
    const uint8_t* begin = codes + n * m.k;
    const bool bad = std::any_of(begin, begin + m.k, [](uint8_t c) { return (c & 127) == 127; });
    if (!bad) continue;
    m.Decode(n, row.data());
    CheckFinite(row, StrCat(where, ", row ", n, ","));
  }
}

}  // namespace tern::engine
