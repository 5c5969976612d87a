// How stored weights become 16 fp32 weights in registers, for float_gemm_avx2.cc and
// float_gemm_avx512.cc. V has the operations on 16 lanes (lanes16_avx2.h, lanes16_avx512.h). Each
// C<V> gives
//   kWeights, kBytes   of a block, kUnits units of 16 weights
//   Load(block)        reads scales;  Weights<u>() decodes unit u
#pragma once

#include <cstdint>

#include "kernels/common/inline.h"

namespace tern::kernels {

template <class V>
struct CodeF32 {
  using F = typename V::F;
  static constexpr int kWeights = 16, kBytes = 64, kUnits = 1;
  const uint8_t* p;
  TERN_INLINE void Load(const uint8_t* block) { p = block; }
  template <int u>
  TERN_INLINE F Weights() const {
    return V::LoadBytes(p);
  }
};

template <class V>
struct CodeF16 {
  using F = typename V::F;
  static constexpr int kWeights = 32, kBytes = 64, kUnits = 2;
  const uint8_t* p;
  TERN_INLINE void Load(const uint8_t* block) { p = block; }
  template <int u>
  TERN_INLINE F Weights() const {
    return V::LoadHalves(p + 32 * u);
  }
};

template <class V>
struct CodeBf16 {
  using F = typename V::F;
  static constexpr int kWeights = 32, kBytes = 64, kUnits = 2;
  const uint8_t* p;
  TERN_INLINE void Load(const uint8_t* block) { p = block; }
  template <int u>
  TERN_INLINE F Weights() const {
    return V::LoadBf16(p + 32 * u);
  }
};

template <class V>
struct CodeQ8_0 {
  using F = typename V::F;
  static constexpr int kWeights = 32, kBytes = 34, kUnits = 2;
  const uint8_t* p;
  F d;
  TERN_INLINE void Load(const uint8_t* block) {
    p = block + 2;
    d = V::BroadcastHalf(block);
  }
  template <int u>
  TERN_INLINE F Weights() const {
    return V::Mul(d, V::ToFloat(V::LoadSigned(p + 16 * u)));
  }
};

}  // namespace tern::kernels
