// The implementations behind gated_ffn.h, one an instruction set. For the dispatcher and the tests
// only.
#pragma once

#include <cstdint>

#include "kernels/gated_ffn/gated_ffn.h"

namespace tern::kernels {

void GatedFfnForwardRef(GateActivation activation, const float* gate, const float* up,
                        int64_t count, float* h);
void GatedFfnForwardAvx2(GateActivation activation, const float* gate, const float* up,
                         int64_t count, float* h);
void GatedFfnForwardAvx512(GateActivation activation, const float* gate, const float* up,
                           int64_t count, float* h);
void GatedFfnForwardNeon(GateActivation activation, const float* gate, const float* up,
                         int64_t count, float* h);

void GatedFfnBackwardRef(GateActivation activation, const float* dh, const float* gate,
                         const float* up, int64_t count, float* dgate, float* dup);
void GatedFfnBackwardAvx2(GateActivation activation, const float* dh, const float* gate,
                          const float* up, int64_t count, float* dgate, float* dup);
void GatedFfnBackwardAvx512(GateActivation activation, const float* dh, const float* gate,
                            const float* up, int64_t count, float* dgate, float* dup);
void GatedFfnBackwardNeon(GateActivation activation, const float* dh, const float* gate,
                          const float* up, int64_t count, float* dgate, float* dup);

}  // namespace tern::kernels
