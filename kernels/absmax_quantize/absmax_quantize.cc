// Picks the activation quantizer of the active instruction set.
#include "kernels/absmax_quantize/absmax_quantize.h"

#include "kernels/absmax_quantize/absmax_quantize_impl.h"
#include "kernels/common/isa.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::kernels {

void AbsmaxQuantize(const float* x, int64_t row_begin, int64_t row_end, int64_t k, int64_t ldx,
                    int8_t* q, int64_t ldq, float* gamma, int32_t* sum) {
  const Isa isa = ActiveIsa();
  const int64_t padded_k = T2PaddedK(k);
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float* from = x + row * ldx;
    int8_t* to = q + row * ldq;
    switch (isa) {
      case Isa::kScalar:
        AbsmaxQuantizeRowRef(from, k, padded_k, to, gamma + row, sum + row);
        break;
      case Isa::kAvx2:
        AbsmaxQuantizeRowAvx2(from, k, padded_k, to, gamma + row, sum + row);
        break;
      case Isa::kAvx512:
        AbsmaxQuantizeRowAvx512(from, k, padded_k, to, gamma + row, sum + row);
        break;
    }
  }
}

void DequantizeRows(const int8_t* q, int64_t row_begin, int64_t row_end, int64_t k, int64_t ldq,
                    const float* gamma, float* out, int64_t ldo) {
  const Isa isa = ActiveIsa();
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float scale = gamma[row] / 127.0f;
    const int8_t* from = q + row * ldq;
    float* to = out + row * ldo;
    switch (isa) {
      case Isa::kScalar:
        DequantizeRowRef(from, k, scale, to);
        break;
      case Isa::kAvx2:
        DequantizeRowAvx2(from, k, scale, to);
        break;
      case Isa::kAvx512:
        DequantizeRowAvx512(from, k, scale, to);
        break;
    }
  }
}

}  // namespace tern::kernels
