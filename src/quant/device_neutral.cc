// See device_neutral.h.
#include "quant/device_neutral.h"

#include <ATen/ops/_int_mm.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/absmax_quantize/absmax_quantize.h"
#include "kernels/ternary_pack/t2.h"
#include "kernels/ternary_quantize/ternary_quantize.h"
#include "quant/gpu_kernels.h"

namespace tern::quant::neutral {
namespace {

constexpr int64_t kPlanes = 4;  // Codes a byte of T2
constexpr int64_t kPlaneStep = kernels::kT2BlockWeights / kPlanes;
// Columns whose products add up exactly in fp32 in any order: |code| <= 128, 128 K <= 2^24.
constexpr int64_t kExactColumns = int64_t{1} << 17;

// a / b, rounded once. With a number for one of them libtorch multiplies by a rounded reciprocal.
at::Tensor DivideNumber(float a, const at::Tensor& b) { return at::full_like(b, a).div(b); }
at::Tensor DivideByNumber(const at::Tensor& a, float b) { return a.div(at::full_like(a, b)); }

// cuBLASLt's int8 product takes these shapes (at::_int_mm); elsewhere its CPU form is the slow one.
bool HasInt8Product(const at::Tensor& x_MK, int64_t n) {
  constexpr int64_t kLeastRows = 17, kUnit = 8;
  return x_MK.is_cuda() && x_MK.size(0) >= kLeastRows && n % kUnit == 0;
}

// float(x_MK w_NK^T), int8 operands with equal columns; the sums are exact.
at::Tensor IntegerProduct(const at::Tensor& x_MK, const at::Tensor& w_NK) {
  if (HasInt8Product(x_MK, w_NK.size(0))) return at::_int_mm(x_MK, w_NK.t()).to(at::kFloat);
  const int64_t k = x_MK.size(1);
  const auto part = [&](int64_t begin) {
    const int64_t count = std::min(kExactColumns, k - begin);
    return at::mm(x_MK.narrow(1, begin, count).to(at::kFloat),
                  w_NK.narrow(1, begin, count).to(at::kFloat).t());
  };
  if (k <= kExactColumns) return part(0);
  at::Tensor sum_MN = part(0).to(at::kDouble);
  for (int64_t begin = kExactColumns; begin < k; begin += kExactColumns) sum_MN.add_(part(begin));
  return sum_MN.to(at::kFloat);
}

}  // namespace

at::Tensor AbsBlockSums(const at::Tensor& w_NK) {
  TERN_CHECK(w_NK.is_contiguous() && w_NK.scalar_type() == at::kFloat, w_NK.sizes());
  if (const GpuKernels* gpu = GpuKernels::For(w_NK)) return gpu->AbsBlockSums(w_NK);
  constexpr int64_t kBlock = kernels::kAbsMeanBlock;
  const int64_t count = w_NK.numel(), blocks = (count + kBlock - 1) / kBlock;
  at::Tensor sums_B = at::zeros({blocks}, w_NK.options());
  if (blocks == 0) return sums_B;
  // What is beyond the last element adds 0, which changes no sum.
  const at::Tensor padded =
      at::constant_pad_nd(w_NK.abs().view({-1}), {0, blocks * kBlock - count});
  for (const at::Tensor& column_B : padded.view({blocks, kBlock}).t().contiguous().unbind(0))
    sums_B.add_(column_B);
  return sums_B;
}

at::Tensor PackT2(const at::Tensor& codes_NK) {
  const int64_t n = codes_NK.size(0), k = codes_NK.size(1), padded_k = kernels::T2PaddedK(k);
  // Code + 1 below K, 1 (weight 0) beyond: byte b of a block holds k = b, 32 + b, 64 + b, 96 + b.
  const at::Tensor planes =
      at::constant_pad_nd(codes_NK, {0, padded_k - k})
          .add(1)
          .to(at::kByte)
          .view({n, padded_k / kernels::kT2BlockWeights, kPlanes, kPlaneStep});
  at::Tensor bytes = planes.select(2, 0).clone();
  for (int64_t plane = 1; plane < kPlanes; ++plane)
    bytes.add_(planes.select(2, plane) * (int64_t{1} << (2 * plane)));
  return bytes.view({n, padded_k / kPlanes});
}

at::Tensor UnpackT2(const at::Tensor& t2_NC, int64_t k) {
  const int64_t n = t2_NC.size(0), padded_k = t2_NC.size(1) * kPlanes;
  TERN_CHECK(padded_k == kernels::T2PaddedK(k), t2_NC.sizes(), " for ", k, " columns");
  const at::Tensor bytes = t2_NC.view({n, padded_k / kernels::kT2BlockWeights, kPlaneStep});
  std::vector<at::Tensor> planes;
  for (int64_t plane = 0; plane < kPlanes; ++plane)
    planes.push_back(bytes.__rshift__(2 * plane).__and__(3));
  return at::stack(planes, 2).to(at::kChar).sub_(1).view({n, padded_k}).narrow(1, 0, k);
}

at::Tensor TernaryCodes(const at::Tensor& w_NK, float beta) {
  // round() is half to even.
  return w_NK.mul(double{1.0f / beta}).clamp_(-1, 1).round_().to(at::kChar);
}

TernaryWeight QuantizeTernary(const at::Tensor& w_NK, float beta, const at::Tensor& previous_NC) {
  if (const GpuKernels* gpu = GpuKernels::For(w_NK))
    return gpu->QuantizeTernary(w_NK, beta, previous_NC);
  const at::Tensor codes_NK = TernaryCodes(w_NK, beta);
  TernaryWeight out;
  out.t2_NC = PackT2(codes_NK);
  out.beta = beta;
  out.k = w_NK.size(1);
  out.zeros = codes_NK.numel() - codes_NK.count_nonzero().item<int64_t>();
  if (previous_NC.defined())
    out.flips = codes_NK.ne(UnpackT2(previous_NC, out.k)).sum().item<int64_t>();
  return out;
}

Int8Rows QuantizeRows(const at::Tensor& x_MK) {
  if (const GpuKernels* gpu = GpuKernels::For(x_MK)) return gpu->QuantizeRows(x_MK);
  const int64_t k = x_MK.size(1);
  Int8Rows out;
  out.k = k;
  out.gamma_M = x_MK.abs().amax(1).clamp_min(double{kernels::kActivationFloor});
  const at::Tensor codes_MK =
      x_MK.mul(DivideNumber(127.0f, out.gamma_M).unsqueeze(1)).round_().clamp_(-128, 127);
  out.q_MK = at::constant_pad_nd(codes_MK.to(at::kChar), {0, kernels::T2PaddedK(k) - k});
  out.sum_M = out.q_MK.sum(1, /*keepdim=*/false, at::kInt);
  return out;
}

at::Tensor TernaryMatMul(const Int8Rows& x, const TernaryWeight& w) {
  if (const GpuKernels* gpu = GpuKernels::For(x.q_MK)) return gpu->TernaryMatMul(x, w);
  const at::Tensor w_NK = UnpackT2(w.t2_NC, x.q_MK.size(1));  // Zero columns for the padding
  const at::Tensor out_scale_M1 =
      DivideByNumber(x.gamma_M, 127.0f).mul_(double{w.beta}).unsqueeze(1);
  return IntegerProduct(x.q_MK, w_NK).mul_(out_scale_M1);
}

at::Tensor Dequantize(const TernaryWeight& w, float scale) {
  return UnpackT2(w.t2_NC, w.k).to(at::kFloat).mul_(double{scale});
}

at::Tensor Dequantize(const Int8Rows& x) {
  return x.q_MK.narrow(1, 0, x.k)
      .to(at::kFloat)
      .mul_(DivideByNumber(x.gamma_M, 127.0f).unsqueeze(1));
}

}  // namespace tern::quant::neutral
