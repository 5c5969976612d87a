// RMSNorm on vectors of 4 floats.
#include "kernels/rms_norm/rms_norm_impl.h"
#include "kernels/rms_norm/rms_norm_vec.h"

namespace tern::kernels {

void RmsNormForwardNeon(const float* x, const float* g, int64_t row_begin, int64_t row_end,
                        int64_t d, float eps, float* y, float* inv_rms) {
  RmsNormVec<4>::Forward(x, g, row_begin, row_end, d, eps, y, inv_rms);
}

void RmsNormBackwardNeon(const float* dy, const float* x, const float* g, const float* inv_rms,
                         int64_t row_begin, int64_t row_end, int64_t d, float* dx, float* dg) {
  RmsNormVec<4>::Backward(dy, x, g, inv_rms, row_begin, row_end, d, dx, dg);
}

}  // namespace tern::kernels
