// See ternary_rows.h.
#include "quant/ternary_rows.h"

#include <numeric>

#include "base/error.h"
#include "kernels/ternary_quantize/block_sums.h"
#include "kernels/ternary_quantize/ternary_quantize.h"
#include "quant/torch_parallel.h"

namespace tern::quant {

int64_t RowUnit(int64_t k) { return kernels::kAbsMeanBlock / std::gcd(kernels::kAbsMeanBlock, k); }

int64_t NumBlocks(int64_t elements) {
  return (elements + kernels::kAbsMeanBlock - 1) / kernels::kAbsMeanBlock;
}

std::vector<float> BlockSums(const at::Tensor& w_NK) {
  TERN_CHECK(w_NK.is_contiguous() && w_NK.scalar_type() == at::kFloat, w_NK.sizes());
  const int64_t count = w_NK.numel(), blocks = NumBlocks(count);
  std::vector<float> sums(static_cast<size_t>(blocks));
  constexpr int64_t kGrain = 16;  // As TernaryScale's
  TorchParallel()(blocks, kGrain, [&](int64_t begin, int64_t end) {
    kernels::AbsBlockSums(w_NK.const_data_ptr<float>(), count, begin, end, sums.data());
  });
  return sums;
}

float ScaleOfSums(const float* sums, int64_t count) {
  return kernels::ScaleOfBlockSums(sums, NumBlocks(count), count);
}

void QuantizeRowsTo(const at::Tensor& w_NK, float beta, uint8_t* t2) {
  if (w_NK.numel() == 0) return;
  kernels::TernaryQuantize(w_NK.const_data_ptr<float>(), w_NK.size(0), w_NK.size(1), beta, t2,
                           nullptr, TorchParallel());
}

}  // namespace tern::quant
