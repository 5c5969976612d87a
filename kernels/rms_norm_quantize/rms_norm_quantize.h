// RMSNorm and the int8 quantization of its result in one pass over the tokens, for the input of a
// ternary product: the normalised row is never written to memory.
//   y[i] = x[i] * inv_rms * g[i]                                   (kernels/rms_norm)
//   q = clamp(rint(y * (127 / gamma))), gamma = max(amax|y|, 1e-5)  (kernels/absmax_quantize)
// Exactly RmsNormForward followed by AbsmaxQuantize, bit for bit, on every instruction set and on a
// GPU: the squares are added in the 16 lanes of common/lanes.h. A row depends on nothing but
// itself.
#pragma once

#include <cstdint>

#include "base/parallel.h"

namespace tern::kernels {

// REQUIRES: d >= 1; y finite (the caller's check of x and g). A sum of squares beyond fp32 gives
// inv_rms = 0 and a row of zeros, as in RmsNormForward. No output may overlap an input.
struct RmsNormQuantizeArgs {
  const float* x;  // [m, d]
  const float* g;  // [d]
  int64_t m, d;
  float eps;
  int8_t* q;  // [m, ldq], ldq >= T2PaddedK(d); columns d..T2PaddedK(d) become 0.
  int64_t ldq;
  float* gamma;    // [m]
  int32_t* sum;    // [m], sum of the row of q.
  float* inv_rms;  // [m], for RmsNormBackward.
};

void RmsNormQuantize(const RmsNormQuantizeArgs& args, const ParallelFor& parallel);

}  // namespace tern::kernels
