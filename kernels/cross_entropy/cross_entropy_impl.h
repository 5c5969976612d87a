// The implementations behind cross_entropy.h, one row a call and one an instruction set. For the
// dispatcher and the tests only.
#pragma once

#include <cstdint>

namespace tern::kernels {

// Returns sum_j exp(z[j] - *max) and the row's maximum; with `exponentials` (may be z itself) also
// stores the terms.
float SumExpRef(const float* z, int64_t v, float* max, float* exponentials);
float SumExpAvx2(const float* z, int64_t v, float* max, float* exponentials);
float SumExpAvx512(const float* z, int64_t v, float* max, float* exponentials);
float SumExpNeon(const float* z, int64_t v, float* max, float* exponentials);

// z[j] = z[j] * inv_sum * scale, in this order.
void ScaleRef(float* z, int64_t v, float inv_sum, float scale);
void ScaleAvx2(float* z, int64_t v, float inv_sum, float scale);
void ScaleAvx512(float* z, int64_t v, float inv_sum, float scale);
void ScaleNeon(float* z, int64_t v, float inv_sum, float scale);

}  // namespace tern::kernels
