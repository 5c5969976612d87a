// The implementations behind rope.h, one an instruction set. For the dispatcher and the tests only.
#pragma once

#include <cstdint>

namespace tern::kernels {

// One row: x [heads, 2 * half], cosine and sine [half]; `sign` is 1 (forward) or -1 (inverse).
void RopeRow(float* x, int64_t heads, int64_t half, const float* cosine, const float* sine,
             float sign);
void RopeRowRef(float* x, int64_t heads, int64_t half, const float* cosine, const float* sine,
                float sign);
void RopeRowAvx2(float* x, int64_t heads, int64_t half, const float* cosine, const float* sine,
                 float sign);
void RopeRowAvx512(float* x, int64_t heads, int64_t half, const float* cosine, const float* sine,
                   float sign);
void RopeRowNeon(float* x, int64_t heads, int64_t half, const float* cosine, const float* sine,
                 float sign);

}  // namespace tern::kernels
