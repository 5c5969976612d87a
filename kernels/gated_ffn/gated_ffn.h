// The gate of a gated feed-forward layer (Shazeer, arXiv 2002.05202): h = act(gate) * up, and its
// backward. fp32, elementwise over `count` elements, so there is no order of summation and no
// dependence on threads. The scalar and SIMD versions use the same exp polynomial
// (kernels/common/exp.h) without FMA and agree bit for bit.
//   SiLU:          act(z) = z * s(z), act'(z) = s(z) (1 + z (1 - s(z))), s(z) = 1 / (1 + exp(-z))
//   squared ReLU:  act(z) = max(z, 0)^2, act'(z) = 2 max(z, 0)   (So et al., arXiv 2109.08668)
#pragma once

#include <cstdint>

#include "base/parallel.h"

namespace tern::kernels {

enum class GateActivation { kSilu, kSquaredRelu };

// h[i] = act(gate[i]) * up[i]. h may be gate or up.
void GatedFfnForward(GateActivation activation, const float* gate, const float* up, int64_t count,
                     float* h, const ParallelFor& parallel);

// dgate[i] = dh[i] * up[i] * act'(gate[i]), dup[i] = dh[i] * act(gate[i]). Outputs may be any of
// the inputs of the same element (each element is read whole before it is written).
void GatedFfnBackward(GateActivation activation, const float* dh, const float* gate,
                      const float* up, int64_t count, float* dgate, float* dup,
                      const ParallelFor& parallel);

}  // namespace tern::kernels
