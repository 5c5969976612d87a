// Cuts the gate for the threads and picks the instruction set.
#include "kernels/gated_ffn/gated_ffn.h"

#include "kernels/common/versions.h"
#include "kernels/gated_ffn/gated_ffn_impl.h"

namespace tern::kernels {
namespace {

constexpr int64_t kGrainElements =
    16384;  // Work below which waking a thread costs more than it saves.

void Forward(GateActivation activation, const float* gate, const float* up, int64_t count,
             float* h) {
  return TERN_ACTIVE(GatedFfnForward)(activation, gate, up, count, h);
}

void Backward(GateActivation activation, const float* dh, const float* gate, const float* up,
              int64_t count, float* dgate, float* dup) {
  return TERN_ACTIVE(GatedFfnBackward)(activation, dh, gate, up, count, dgate, dup);
}

}  // namespace

void GatedFfnForward(GateActivation activation, const float* gate, const float* up, int64_t count,
                     float* h, const ParallelFor& parallel) {
  parallel(count, kGrainElements, [&](int64_t begin, int64_t end) {
    Forward(activation, gate + begin, up + begin, end - begin, h + begin);
  });
}

void GatedFfnBackward(GateActivation activation, const float* dh, const float* gate,
                      const float* up, int64_t count, float* dgate, float* dup,
                      const ParallelFor& parallel) {
  parallel(count, kGrainElements, [&](int64_t begin, int64_t end) {
    Backward(activation, dh + begin, gate + begin, up + begin, end - begin, dgate + begin,
             dup + begin);
  });
}

}  // namespace tern::kernels
