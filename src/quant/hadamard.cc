// See hadamard.h.
#include "quant/hadamard.h"

#include <ATen/Parallel.h>

#include <cmath>

#include "base/error.h"
#include "quant/device_neutral_formats.h"

namespace tern::quant {
namespace {

constexpr int64_t kRowGrain = 16;  // Rows a thread takes at least

void TransformBlock(float* x, int64_t size) {
  for (int64_t half = 1; half < size; half *= 2) {
    for (int64_t first = 0; first < size; first += 2 * half) {
      for (int64_t i = first; i < first + half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
    }
  }
  const auto factor = static_cast<float>(1 / std::sqrt(static_cast<double>(size)));
  for (int64_t i = 0; i < size; ++i) x[i] *= factor;
}

}  // namespace

int64_t HadamardBlock(int64_t k) { return k & -k; }

at::Tensor Hadamard(const at::Tensor& x_MK) {
  TERN_CHECK(x_MK.dim() == 2 && x_MK.scalar_type() == at::kFloat && x_MK.is_contiguous() &&
                 x_MK.size(1) > 0,
             "x_MK is ", x_MK.scalar_type(), " ", x_MK.sizes());
  if (!x_MK.device().is_cpu()) return neutral::Hadamard(x_MK);
  at::Tensor out_MK = x_MK.clone();
  const int64_t k = x_MK.size(1), block = HadamardBlock(k);
  float* out = out_MK.mutable_data_ptr<float>();
  at::parallel_for(0, x_MK.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin * k; at < end * k; at += block) TransformBlock(out + at, block);
  });
  return out_MK;
}

}  // namespace tern::quant
