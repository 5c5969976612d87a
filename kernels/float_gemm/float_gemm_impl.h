// The versions of FloatGemm, for its dispatcher and its tests. A version works on the rows
// [n_begin, n_end) and all tokens.
#pragma once

#include "kernels/float_gemm/float_gemm.h"

namespace tern::kernels {

// The oracle: decodes a row, then adds up. `buffer` is not used.
void FloatGemmRef(const FloatGemmArgs& args, int64_t n_begin, int64_t n_end, float* buffer);

// `buffer`: kPanelRows + 1 rows of PanelStride(k) floats, aligned to 64 bytes. REQUIRES: the
// instruction set.
inline constexpr int64_t kPanelRows = 4;
static inline int64_t PanelStride(int64_t k) { return (k + 15) / 16 * 16; }
void FloatGemmAvx2(const FloatGemmArgs& args, int64_t n_begin, int64_t n_end, float* buffer);
void FloatGemmAvx512(const FloatGemmArgs& args, int64_t n_begin, int64_t n_end, float* buffer);
void FloatGemmNeon(const FloatGemmArgs& args, int64_t n_begin, int64_t n_end, float* buffer);

}  // namespace tern::kernels
