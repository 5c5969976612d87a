// Scalar oracle of the activation quantizer.
#include <algorithm>
#include <cmath>

#include "kernels/absmax_quantize/absmax_quantize.h"
#include "kernels/absmax_quantize/absmax_quantize_impl.h"

namespace tern::kernels {

void AbsmaxQuantizeRowRef(const float* x, int64_t k, int64_t padded_k, int8_t* q, float* gamma,
                          int32_t* sum) {
  float amax = 0.0f;
  for (int64_t i = 0; i < k; ++i) amax = std::max(amax, std::fabs(x[i]));
  *gamma = std::max(amax, kActivationFloor);
  const float scale = 127.0f / *gamma;
  int32_t total = 0;
  for (int64_t i = 0; i < k; ++i) {
    // The default rounding mode of the process: half to even.
    const float rounded = std::nearbyint(x[i] * scale);
    const int32_t code = static_cast<int32_t>(std::clamp(rounded, -128.0f, 127.0f));
    q[i] = static_cast<int8_t>(code);
    total += code;
  }
  for (int64_t i = k; i < padded_k; ++i) q[i] = 0;
  *sum = total;
}

void DequantizeRowRef(const int8_t* q, int64_t k, float scale, float* out) {
  for (int64_t i = 0; i < k; ++i) out[i] = scale * static_cast<float>(q[i]);
}

}  // namespace tern::kernels
