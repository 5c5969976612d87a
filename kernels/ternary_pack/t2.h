// T2: ternary weights, 2 bits each, in the order every kernel of ours reads. Row-major; each row is
// blocks of 128 weights along K in 32 bytes; byte b of a block holds the codes of k = b, 32+b,
// 64+b, 96+b in bits 0-1, 2-3, 4-5, 6-7; a code is weight + 1 (0, 1, 2; 3 never occurs). K is
// padded to a multiple of 128 with code 1 (weight 0). These are the bit planes of GGUF's TQ2_0
// without its per-block scale; the scale (one fp32 a matrix) is kept outside.
#pragma once

#include <cstdint>

namespace tern::kernels {

inline constexpr int64_t kT2BlockWeights = 128;
inline constexpr int64_t kT2BlockBytes = 32;

constexpr int64_t T2PaddedK(int64_t k) {
  return (k + kT2BlockWeights - 1) / kT2BlockWeights * kT2BlockWeights;
}
constexpr int64_t T2RowBytes(int64_t k) { return T2PaddedK(k) / 4; }

// One row. `weights` holds k values of -1, 0, 1; `packed` T2RowBytes(k) bytes.
void PackT2Row(const int8_t* weights, int64_t k, uint8_t* packed);
void UnpackT2Row(const uint8_t* packed, int64_t k, int8_t* weights);

// out[n * ldo + i] = scale * weight(n, i) as fp32, for rows [row_begin, row_end). Exact: scale
// times -1, 0 or 1.
void DequantizeT2(const uint8_t* packed, int64_t row_begin, int64_t row_end, int64_t k, float scale,
                  float* out, int64_t ldo);

}  // namespace tern::kernels
