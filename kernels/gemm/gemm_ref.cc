// See gemm_cuda.h.
#include "kernels/common/half.h"
#include "kernels/fp8/fp8.h"
#include "kernels/gemm/gemm_cuda.h"

namespace tern::kernels {
namespace {

float ValueAt(GemmType type, const void* values, int64_t at) {
  if (type == GemmType::kF32) return static_cast<const float*>(values)[at];
  if (type == GemmType::kE4m3) return E4M3ToFp32Ref(static_cast<const uint8_t*>(values)[at]);
  const uint16_t bits = static_cast<const uint16_t*>(values)[at];
  return type == GemmType::kF16 ? FloatFromHalf(bits) : FloatFromBfloat(bits);
}

}  // namespace

void GemmRef(const GemmArgs& args) {
  for (int64_t m = 0; m < args.m; ++m) {
    for (int64_t n = 0; n < args.n; ++n) {
      float sum = 0.0f;
      for (int64_t k = 0; k < args.k; ++k)
        sum +=
            ValueAt(args.type, args.x, m * args.k + k) * ValueAt(args.type, args.w, n * args.k + k);
      args.y[m * args.n + n] = sum;
    }
  }
}

}  // namespace tern::kernels
