// Picks the T2 implementation of the active instruction set.
#include "kernels/ternary_pack/t2.h"

#include "kernels/common/isa.h"
#include "kernels/ternary_pack/t2_impl.h"

namespace tern::kernels {

void PackT2Row(const int8_t* weights, int64_t k, uint8_t* packed) {
  switch (ActiveIsa()) {
    case Isa::kScalar:
      return PackT2RowRef(weights, k, packed);
    case Isa::kAvx2:
      return PackT2RowAvx2(weights, k, packed);
    case Isa::kAvx512:
      return PackT2RowAvx512(weights, k, packed);
  }
}

void UnpackT2Row(const uint8_t* packed, int64_t k, int8_t* weights) {
  switch (ActiveIsa()) {
    case Isa::kScalar:
      return UnpackT2RowRef(packed, k, weights);
    case Isa::kAvx2:
      return UnpackT2RowAvx2(packed, k, weights);
    case Isa::kAvx512:
      return UnpackT2RowAvx512(packed, k, weights);
  }
}

void DequantizeT2(const uint8_t* packed, int64_t row_begin, int64_t row_end, int64_t k, float scale,
                  float* out, int64_t ldo) {
  const Isa isa = ActiveIsa();
  for (int64_t row = row_begin; row < row_end; ++row) {
    const uint8_t* from = packed + row * T2RowBytes(k);
    float* to = out + row * ldo;
    switch (isa) {
      case Isa::kScalar:
        DequantizeT2RowRef(from, k, scale, to);
        break;
      case Isa::kAvx2:
        DequantizeT2RowAvx2(from, k, scale, to);
        break;
      case Isa::kAvx512:
        DequantizeT2RowAvx512(from, k, scale, to);
        break;
    }
  }
}

}  // namespace tern::kernels
