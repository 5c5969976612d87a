// The gate on vectors of W floats, for gated_ffn_avx2.cc,
// gated_ffn_avx512.cc and gated_ffn_neon.cc. The ragged end
// goes through a padded vector, so that every element takes the same path.
#pragma once

#include <cstdint>

#include "kernels/common/exp.h"
#include "kernels/common/vec.h"
#include "kernels/gated_ffn/gated_ffn.h"

namespace tern::kernels {

template <GateActivation A, int W>
struct GatedFfnVec {
  using F = VecF<W>;
  using U = typename Vec<W>::U;

  struct Activated {
    F value;
    F slope;
  };

  static inline __attribute__((always_inline)) Activated Activate(F z) {
    if constexpr (A == GateActivation::kSilu) {
      const F s = 1.0f / (1.0f + ExpOf<F, U>(-z));
      return {z * s, s * (1.0f + z * (1.0f - s))};
    } else {
      const F zero = F{};
      const F r = z < zero ? zero : z;
      return {r * r, 2.0f * r};
    }
  }

  static void Forward(const float* gate, const float* up, int64_t count, float* h) {
    int64_t i = 0;
    for (; i + W <= count; i += W)
      Store(h + i, Activate(Load<W>(gate + i)).value * Load<W>(up + i));
    if (i < count) {
      float g[W] = {}, u[W] = {};
      for (int64_t j = i; j < count; ++j) g[j - i] = gate[j], u[j - i] = up[j];
      const F result = Activate(Load<W>(g)).value * Load<W>(u);
      for (int64_t j = i; j < count; ++j) h[j] = result[j - i];
    }
  }

  static void Backward(const float* dh, const float* gate, const float* up, int64_t count,
                       float* dgate, float* dup) {
    int64_t i = 0;
    for (; i + W <= count; i += W) {
      const Activated act = Activate(Load<W>(gate + i));
      const F dhi = Load<W>(dh + i), upi = Load<W>(up + i);
      Store(dgate + i, dhi * upi * act.slope);
      Store(dup + i, dhi * act.value);
    }
    if (i < count) {
      float g[W] = {}, u[W] = {}, d[W] = {};
      for (int64_t j = i; j < count; ++j) g[j - i] = gate[j], u[j - i] = up[j], d[j - i] = dh[j];
      const Activated act = Activate(Load<W>(g));
      const F to_gate = Load<W>(d) * Load<W>(u) * act.slope, to_up = Load<W>(d) * act.value;
      for (int64_t j = i; j < count; ++j) dgate[j] = to_gate[j - i], dup[j] = to_up[j - i];
    }
  }
};

}  // namespace tern::kernels
