// Scalar oracle of the gate.
#include "kernels/common/exp.h"
#include "kernels/gated_ffn/gated_ffn_impl.h"

namespace tern::kernels {
namespace {

struct Activated {
  float value;
  float slope;
};

Activated Activate(GateActivation activation, float z) {
  switch (activation) {
    case GateActivation::kSilu: {
      const float s = 1.0f / (1.0f + Exp(-z));
      return {z * s, s * (1.0f + z * (1.0f - s))};
    }
    case GateActivation::kSquaredRelu: {
      const float r = z < 0.0f ? 0.0f : z;
      return {r * r, 2.0f * r};
    }
  }
  return {};
}

}  // namespace

void GatedFfnForwardRef(GateActivation activation, const float* gate, const float* up,
                        int64_t count, float* h) {
  for (int64_t i = 0; i < count; ++i) h[i] = Activate(activation, gate[i]).value * up[i];
}

void GatedFfnBackwardRef(GateActivation activation, const float* dh, const float* gate,
                         const float* up, int64_t count, float* dgate, float* dup) {
  for (int64_t i = 0; i < count; ++i) {
    const Activated act = Activate(activation, gate[i]);
    const float dhi = dh[i], upi = up[i];
    dgate[i] = dhi * upi * act.slope;
    dup[i] = dhi * act.value;
  }
}

}  // namespace tern::kernels
