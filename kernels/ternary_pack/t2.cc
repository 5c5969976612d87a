// Picks the T2 implementation of the active instruction set.
#include "kernels/ternary_pack/t2.h"

#include "kernels/common/versions.h"
#include "kernels/ternary_pack/t2_impl.h"

namespace tern::kernels {

void PackT2Row(const int8_t* weights, int64_t k, uint8_t* packed) {
  return TERN_ACTIVE(PackT2Row)(weights, k, packed);
}

void UnpackT2Row(const uint8_t* packed, int64_t k, int8_t* weights) {
  return TERN_ACTIVE(UnpackT2Row)(packed, k, weights);
}

void DequantizeT2(const uint8_t* packed, int64_t row_begin, int64_t row_end, int64_t k, float scale,
                  float* out, int64_t ldo) {
  const auto dequantize = TERN_ACTIVE(DequantizeT2Row);
  for (int64_t row = row_begin; row < row_end; ++row)
    dequantize(packed + row * T2RowBytes(k), k, scale, out + row * ldo);
}

}  // namespace tern::kernels
