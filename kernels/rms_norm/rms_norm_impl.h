// The implementations behind rms_norm.h, one an instruction set. For the dispatcher and the tests
// only.
#pragma once

#include <cstdint>

namespace tern::kernels {

// Rows [row_begin, row_end).
void RmsNormForwardRef(const float* x, const float* g, int64_t row_begin, int64_t row_end,
                       int64_t d, float eps, float* y, float* inv_rms);
void RmsNormForwardAvx2(const float* x, const float* g, int64_t row_begin, int64_t row_end,
                        int64_t d, float eps, float* y, float* inv_rms);
void RmsNormForwardAvx512(const float* x, const float* g, int64_t row_begin, int64_t row_end,
                          int64_t d, float eps, float* y, float* inv_rms);
void RmsNormForwardNeon(const float* x, const float* g, int64_t row_begin, int64_t row_end,
                        int64_t d, float eps, float* y, float* inv_rms);

// Rows [row_begin, row_end); dg: [d], overwritten with the sum over these rows in row order.
void RmsNormBackwardRef(const float* dy, const float* x, const float* g, const float* inv_rms,
                        int64_t row_begin, int64_t row_end, int64_t d, float* dx, float* dg);
void RmsNormBackwardAvx2(const float* dy, const float* x, const float* g, const float* inv_rms,
                         int64_t row_begin, int64_t row_end, int64_t d, float* dx, float* dg);
void RmsNormBackwardAvx512(const float* dy, const float* x, const float* g, const float* inv_rms,
                           int64_t row_begin, int64_t row_end, int64_t d, float* dx, float* dg);
void RmsNormBackwardNeon(const float* dy, const float* x, const float* g, const float* inv_rms,
                         int64_t row_begin, int64_t row_end, int64_t d, float* dx, float* dg);

}  // namespace tern::kernels
