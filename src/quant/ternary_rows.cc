// See ternary_rows.h.
#include "quant/ternary_rows.h"

#include <numeric>

#include "base/error.h"
#include "kernels/ternary_quantize/block_sums.h"
#include "kernels/ternary_quantize/ternary_quantize.h"
#include "quant/device_neutral.h"
#include "quant/torch_parallel.h"

namespace tern::quant {

int64_t RowUnit(int64_t k) { return kernels::kAbsMeanBlock / std::gcd(kernels::kAbsMeanBlock, k); }

int64_t NumBlocks(int64_t elements) {
  return (elements + kernels::kAbsMeanBlock - 1) / kernels::kAbsMeanBlock;
}

std::vector<float> BlockSums(const at::Tensor& w_NK) {
  TERN_CHECK(w_NK.is_contiguous() && w_NK.scalar_type() == at::kFloat, w_NK.sizes());
  if (!w_NK.device().is_cpu()) {
    const at::Tensor sums_B = neutral::AbsBlockSums(w_NK).cpu();
    const float* data = sums_B.const_data_ptr<float>();
    return {data, data + sums_B.numel()};
  }
  const int64_t count = w_NK.numel(), blocks = NumBlocks(count);
  std::vector<float> sums(static_cast<size_t>(blocks));
  constexpr int64_t kGrain = 16;  // As TernaryScale's
  TorchParallel()(blocks, kGrain, [&](int64_t begin, int64_t end) {
    kernels::AbsBlockSums(w_NK.const_data_ptr<float>(), count, begin, end, sums.data());
  });
  return sums;
}

float ScaleOfSums(const float* sums, int64_t count) {
  if (count == 0) return kernels::kScaleFloor;
  return kernels::ScaleOfBlockSums(sums, NumBlocks(count), count);
}

void QuantizeRowsTo(const at::Tensor& w_NK, float beta, at::Tensor t2_NC) {
  if (w_NK.numel() == 0) return;
  TERN_CHECK(t2_NC.is_contiguous() && t2_NC.device() == w_NK.device(), t2_NC.sizes());
  if (!w_NK.device().is_cpu()) {
    t2_NC.copy_(neutral::PackT2(neutral::TernaryCodes(w_NK, beta)));
    return;
  }
  kernels::TernaryQuantize(w_NK.const_data_ptr<float>(), w_NK.size(0), w_NK.size(1), beta,
                           t2_NC.mutable_data_ptr<uint8_t>(), nullptr, TorchParallel());
}

}  // namespace tern::quant
