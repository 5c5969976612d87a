// h = act(gate) * up on a GPU, four elements a thread and step, with the exp of common/exp.h: equal
// to the CPU kernels bit for bit. Forward only.
//
//   thread t of all threads: elements 4 t .. 4 t + 3, then 4 (t + threads) ...: 128-bit loads and
//   stores, 512 bytes a warp in a row
#pragma once

#include <cstdint>

#include "kernels/common/exp.h"
#include "kernels/common/row.cuh"
#include "kernels/gated_ffn/gated_ffn.h"
#include "kernels/gated_ffn/gated_ffn_cuda.h"

namespace tern::kernels {

template <GateActivation kActivation>
TERN_DEVICE float Activate(float z) {
  if constexpr (kActivation == GateActivation::kSilu) {
    return z * (1.0f / (1.0f + Exp(-z)));
  } else {
    const float r = z < 0.0f ? 0.0f : z;
    return r * r;
  }
}

// Grid: any number of blocks of kRowThreads. Loads go through pointers that may alias h, so each
// thread reads its elements whole before it writes them.
template <GateActivation kActivation>
__global__ void __launch_bounds__(kRowThreads) GatedFfnKernel(const GatedFfnArgs args) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kRowStep;
  int64_t i = (static_cast<int64_t>(blockIdx.x) * kRowThreads + threadIdx.x) * 4;
  for (; i < args.count; i += step) {
    const int left = args.count - i < 4 ? static_cast<int>(args.count - i) : 4;
    const Floats4 gate = LoadFourMutable(args.gate + i, left);
    const Floats4 up = LoadFourMutable(args.up + i, left);
    Floats4 h;
    TERN_UNROLL
    for (int j = 0; j < 4; ++j) h.value[j] = Activate<kActivation>(gate.value[j]) * up.value[j];
    StoreFour(args.h + i, h, left);
  }
}

}  // namespace tern::kernels
