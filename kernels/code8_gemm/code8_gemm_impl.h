// The versions of Code8Gemm and QuantizeInt8, for their dispatchers and tests. Products work on the
// rows [n_begin, n_end).
#pragma once

#include "kernels/code8_gemm/code8_gemm.h"

namespace tern::kernels {

void Code8GemmRef(const Code8GemmArgs& args, int64_t n_begin, int64_t n_end);
void Code8GemmAvx2(const Code8GemmArgs& args, int64_t n_begin, int64_t n_end);
void Code8GemmAvxVnni(const Code8GemmArgs& args, int64_t n_begin, int64_t n_end);
void Code8GemmAvx512(const Code8GemmArgs& args, int64_t n_begin, int64_t n_end);
void Code8GemmNeon(const Code8GemmArgs& args, int64_t n_begin, int64_t n_end);

void QuantizeInt8Ref(const float* x, int64_t m, int64_t k, int64_t ldx, Int8Block* out);
void QuantizeInt8Avx2(const float* x, int64_t m, int64_t k, int64_t ldx, Int8Block* out);
void QuantizeInt8Avx512(const float* x, int64_t m, int64_t k, int64_t ldx, Int8Block* out);
void QuantizeInt8Neon(const float* x, int64_t m, int64_t k, int64_t ldx, Int8Block* out);

}  // namespace tern::kernels
