// W floats as one value, in the compiler's own vector type: + - * / and comparisons work element by
// element with IEEE rounding, so one source gives the same bits at every width. Only for files
// named *_avx2.cc and *_avx512.cc: they instantiate with W = 8 and W = 16, so no function has two
// bodies under one name.
#pragma once

#include <cstdint>
#include <cstring>

namespace tern::kernels {

template <int W>
struct Vec {
  typedef float F __attribute__((vector_size(4 * W)));
  typedef uint32_t U __attribute__((vector_size(4 * W)));
};

template <int W>
using VecF = typename Vec<W>::F;

template <int W>
inline __attribute__((always_inline)) VecF<W> Load(const float* p) {
  VecF<W> v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

template <class V>
inline __attribute__((always_inline)) void Store(float* p, V v) {
  std::memcpy(p, &v, sizeof(v));
}

}  // namespace tern::kernels
