// GGUF's blocks of small codes taken apart for machines that want aligned codes and scales
// (kernels/table): one row, nothing lost. Layouts: docs/formats/block_codecs.md.
#pragma once

#include <cstdint>

#include "kernels/code_gemm/code_gemm.h"

namespace tern::kernels {

// Weights of a scale and a shift: 16 of Q2_K, Q3_K and Q6_K, 32 of the others.
int64_t SplitRun(CodeType type);
// Whether the type has shifts: Q4_1, Q5_1, Q2_K, Q4_K, Q5_K.
bool HasShifts(CodeType type);

// codes[k], scales[k / SplitRun], and shifts[k / SplitRun] of types that have them (else untouched): in fp32,
// each operation rounded once, scale * code + shift is what the type's decoder gives. REQUIRES: k a
// multiple of the type's block (32 or 256).
void SplitCodes(CodeType type, const uint8_t* row, int64_t k, int8_t* codes, float* scales,
                float* shifts);

}  // namespace tern::kernels
