// The gate on vectors of 4 floats.
#include "kernels/gated_ffn/gated_ffn_impl.h"
#include "kernels/gated_ffn/gated_ffn_vec.h"

namespace tern::kernels {

void GatedFfnForwardNeon(GateActivation activation, const float* gate, const float* up,
                         int64_t count, float* h) {
  switch (activation) {
    case GateActivation::kSilu:
      return GatedFfnVec<GateActivation::kSilu, 4>::Forward(gate, up, count, h);
    case GateActivation::kSquaredRelu:
      return GatedFfnVec<GateActivation::kSquaredRelu, 4>::Forward(gate, up, count, h);
  }
}

void GatedFfnBackwardNeon(GateActivation activation, const float* dh, const float* gate,
                          const float* up, int64_t count, float* dgate, float* dup) {
  switch (activation) {
    case GateActivation::kSilu:
      return GatedFfnVec<GateActivation::kSilu, 4>::Backward(dh, gate, up, count, dgate, dup);
    case GateActivation::kSquaredRelu:
      return GatedFfnVec<GateActivation::kSquaredRelu, 4>::Backward(dh, gate, up, count, dgate,
                                                                    dup);
  }
}

}  // namespace tern::kernels
