// How stored weights become 16 fp32 weights in registers, for float_gemm_avx2.cc and
// float_gemm_avx512.cc. V has the operations on 16 lanes (lanes16_avx2.h, lanes16_avx512.h). Each
// C<V> gives
//   kWeights, kBytes   of a block, kUnits units of 16 weights
//   kScaled            whether blocks have their scales elsewhere (FloatGemmArgs::block_scales)
//   Load(block, scale) reads scales;  Weights<u>() decodes unit u
#pragma once

#include <cstdint>

#include "kernels/common/inline.h"

namespace tern::kernels {

// Of a block of a scaled code.
struct BlockScale {
  float scale, zero;
};

template <class V>
struct CodeF32 {
  using F = typename V::F;
  static constexpr bool kScaled = false;
  static constexpr int kWeights = 16, kBytes = 64, kUnits = 1;
  const uint8_t* p;
  TERN_INLINE void Load(const uint8_t* block, BlockScale) { p = block; }
  template <int u>
  TERN_INLINE F Weights() const {
    return V::LoadBytes(p);
  }
};

template <class V>
struct CodeF16 {
  using F = typename V::F;
  static constexpr bool kScaled = false;
  static constexpr int kWeights = 32, kBytes = 64, kUnits = 2;
  const uint8_t* p;
  TERN_INLINE void Load(const uint8_t* block, BlockScale) { p = block; }
  template <int u>
  TERN_INLINE F Weights() const {
    return V::LoadHalves(p + 32 * u);
  }
};

template <class V>
struct CodeBf16 {
  using F = typename V::F;
  static constexpr bool kScaled = false;
  static constexpr int kWeights = 32, kBytes = 64, kUnits = 2;
  const uint8_t* p;
  TERN_INLINE void Load(const uint8_t* block, BlockScale) { p = block; }
  template <int u>
  TERN_INLINE F Weights() const {
    return V::LoadBf16(p + 32 * u);
  }
};

template <class V>
struct CodeQ8_0 {
  using F = typename V::F;
  static constexpr bool kScaled = false;
  static constexpr int kWeights = 32, kBytes = 34, kUnits = 2;
  const uint8_t* p;
  F d;
  TERN_INLINE void Load(const uint8_t* block, BlockScale) {
    p = block + 2;
    d = V::BroadcastHalf(block);
  }
  template <int u>
  TERN_INLINE F Weights() const {
    return V::Mul(d, V::ToFloat(V::LoadSigned(p + 16 * u)));
  }
};

// w = scale * code, code a signed byte.
template <class V>
struct CodeInt8 {
  using F = typename V::F;
  static constexpr bool kScaled = true;
  static constexpr int kWeights = 32, kBytes = 32, kUnits = 2;
  const uint8_t* p;
  F d;
  TERN_INLINE void Load(const uint8_t* block, BlockScale s) {
    p = block;
    d = V::Broadcast(s.scale);
  }
  template <int u>
  TERN_INLINE F Weights() const {
    return V::Mul(d, V::ToFloat(V::LoadSigned(p + 16 * u)));
  }
};

// FP8 E4M3 has fp16's layout with an exponent smaller by 8: fp16 times 2^8, which the scale takes.
template <class V>
struct CodeE4m3 {
  using F = typename V::F;
  static constexpr bool kScaled = true;
  static constexpr int kWeights = 32, kBytes = 32, kUnits = 2;
  const uint8_t* p;
  F d;
  TERN_INLINE void Load(const uint8_t* block, BlockScale s) {
    p = block;
    d = V::Broadcast(256.0f * s.scale);
  }
  template <int u>
  TERN_INLINE F Weights() const {
    return V::Mul(d, V::LoadE4m3(p + 16 * u));
  }
};

// w = scale * (code - zero), codes 0..15, the lower half of a byte first.
template <class V>
struct CodeInt4 {
  using F = typename V::F;
  static constexpr bool kScaled = true;
  static constexpr int kWeights = 32, kBytes = 16, kUnits = 2;
  const uint8_t* p;
  F d, z;
  TERN_INLINE void Load(const uint8_t* block, BlockScale s) {
    p = block;
    d = V::Broadcast(s.scale);
    z = V::Broadcast(s.zero);
  }
  template <int u>
  TERN_INLINE F Weights() const {
    return V::Mul(d, V::Sub(V::ToFloat(V::LoadNibbles(p + 8 * u)), z));
  }
};

}  // namespace tern::kernels
