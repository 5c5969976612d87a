// Picks the activation quantizer of the active instruction set.
#include "kernels/absmax_quantize/absmax_quantize.h"

#include "kernels/absmax_quantize/absmax_quantize_impl.h"
#include "kernels/common/versions.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::kernels {

void AbsmaxQuantize(const float* x, int64_t row_begin, int64_t row_end, int64_t k, int64_t ldx,
                    int8_t* q, int64_t ldq, float* gamma, int32_t* sum) {
  const auto quantize = TERN_ACTIVE(AbsmaxQuantizeRow);
  for (int64_t row = row_begin; row < row_end; ++row)
    quantize(x + row * ldx, k, T2PaddedK(k), q + row * ldq, gamma + row, sum + row);
}

void DequantizeRows(const int8_t* q, int64_t row_begin, int64_t row_end, int64_t k, int64_t ldq,
                    const float* gamma, float* out, int64_t ldo) {
  const auto dequantize = TERN_ACTIVE(DequantizeRow);
  for (int64_t row = row_begin; row < row_end; ++row)
    dequantize(q + row * ldq, k, gamma[row] / 127.0f, out + row * ldo);
}

}  // namespace tern::kernels
