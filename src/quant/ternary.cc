// See ternary.h.
#include "quant/ternary.h"

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "base/error.h"
#include "kernels/absmax_quantize/absmax_quantize.h"
#include "kernels/ternary_gemm/ternary_gemm.h"
#include "kernels/ternary_pack/t2.h"
#include "kernels/ternary_quantize/ternary_quantize.h"
#include "quant/device_neutral.h"
#include "quant/device_neutral_formats.h"
#include "quant/grid.h"
#include "quant/ternary_rows.h"
#include "quant/torch_parallel.h"

namespace tern::quant {
namespace {

constexpr int64_t kRowGrain = 16;  // Rows a thread takes at least: a few microseconds of work.

void CheckMatrix(const at::Tensor& x, const char* name) {
  TERN_CHECK(x.dim() == 2 && x.scalar_type() == at::kFloat && x.is_contiguous(), name, " is ",
             x.scalar_type(), " ", x.sizes(), "; want a contiguous fp32 matrix");
}

// beta * (gamma / 127) in the definition's order, each operation rounded to fp32. A loop of our
// own: a library may turn the division into a multiplication by the rounded reciprocal.
at::Tensor OutputScales(const at::Tensor& gamma_M, float beta) {
  at::Tensor out_M = at::empty_like(gamma_M);
  const float* gamma = gamma_M.const_data_ptr<float>();
  float* out = out_M.mutable_data_ptr<float>();
  for (int64_t m = 0; m < gamma_M.numel(); ++m) out[m] = beta * (gamma[m] / 127.0f);
  return out_M;
}

// Throws NumericError for weights that hold NaN or Inf.
float FiniteScale(const at::Tensor& w_NK) {
  const float beta = w_NK.device().is_cpu() ? kernels::TernaryScale(w_NK.const_data_ptr<float>(),
                                                                    w_NK.numel(), TorchParallel())
                                            : ScaleOfSums(BlockSums(w_NK).data(), w_NK.numel());
  if (!std::isfinite(beta)) {
    throw NumericError(StrCat("weights [", w_NK.size(0), ", ", w_NK.size(1),
                              "] hold NaN or Inf; the last good step is in journal.jsonl"));
  }
  return beta;
}

}  // namespace

TernaryWeight QuantizeTernary(const at::Tensor& w_NK, const at::Tensor& previous_NC) {
  CheckMatrix(w_NK, "w_NK");
  const int64_t n = w_NK.size(0), k = w_NK.size(1);
  const float beta = FiniteScale(w_NK);
  if (!w_NK.device().is_cpu()) return neutral::QuantizeTernary(w_NK, beta, previous_NC);
  TernaryWeight out;
  out.k = k;
  out.beta = beta;
  out.t2_NC = at::empty({n, kernels::T2RowBytes(k)}, at::kByte);
  const uint8_t* previous = previous_NC.defined() ? previous_NC.const_data_ptr<uint8_t>() : nullptr;
  const auto counts =
      kernels::TernaryQuantize(w_NK.const_data_ptr<float>(), n, k, out.beta,
                               out.t2_NC.mutable_data_ptr<uint8_t>(), previous, TorchParallel());
  out.zeros = counts.zeros;
  out.flips = counts.flips;
  return out;
}

at::Tensor FakeTernaryStochastic(const at::Tensor& w_NK, const Noise& noise) {
  CheckMatrix(w_NK, "w_NK");
  const float beta = FiniteScale(w_NK), r = 1.0f / beta;
  if (!w_NK.device().is_cpu()) return neutral::FakeTernaryStochastic(w_NK, beta, noise);
  constexpr Grid kLevels = {-1, 1, 0, 0, true};
  at::Tensor out_NK = at::empty_like(w_NK);
  const float* w = w_NK.const_data_ptr<float>();
  float* out = out_NK.mutable_data_ptr<float>();
  at::parallel_for(0, w_NK.numel(), kRowGrain * w_NK.size(1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      out[i] = beta * RoundStochastic(kLevels, w[i] * r, noise.At(i));
  });
  return out_NK;
}

Int8Rows QuantizeRows(const at::Tensor& x_MK) {
  CheckMatrix(x_MK, "x_MK");
  if (!x_MK.device().is_cpu()) return neutral::QuantizeRows(x_MK);
  const int64_t m = x_MK.size(0), k = x_MK.size(1), padded = kernels::T2PaddedK(k);
  Int8Rows out{at::empty({m, padded}, at::kChar), at::empty({m}, at::kFloat),
               at::empty({m}, at::kInt), k};
  const float* x = x_MK.const_data_ptr<float>();
  int8_t* q = out.q_MK.mutable_data_ptr<int8_t>();
  float* gamma = out.gamma_M.mutable_data_ptr<float>();
  int32_t* sum = out.sum_M.mutable_data_ptr<int32_t>();
  at::parallel_for(0, m, kRowGrain, [&](int64_t begin, int64_t end) {
    kernels::AbsmaxQuantize(x, begin, end, k, k, q, padded, gamma, sum);
  });
  return out;
}

namespace {

// float(acc_MN) * out_scale_M.
at::Tensor ScaledProduct(const Int8Rows& x, const TernaryWeight& w, const at::Tensor& out_scale_M) {
  const int64_t m = x.q_MK.size(0), n = w.t2_NC.size(0);
  at::Tensor y_MN = at::empty({m, n}, at::kFloat);
  kernels::TernaryGemmArgs args;
  args.w_t2 = w.t2_NC.const_data_ptr<uint8_t>();
  args.x = x.q_MK.const_data_ptr<int8_t>();
  args.x_sum = x.sum_M.const_data_ptr<int32_t>();
  args.out_scale = out_scale_M.const_data_ptr<float>();
  args.y = y_MN.mutable_data_ptr<float>();
  args.m = m;
  args.n = n;
  args.k = w.k;
  args.ldx = x.q_MK.size(1);
  args.ldy = n;
  kernels::TernaryGemm(args, TorchParallel());
  return y_MN;
}

}  // namespace

at::Tensor TernaryMatMul(const Int8Rows& x, const TernaryWeight& w) {
  TERN_CHECK(x.k == w.k, "inputs have ", x.k, " columns, weights ", w.k);
  if (!x.q_MK.device().is_cpu()) return neutral::TernaryMatMul(x, w);
  return ScaledProduct(x, w, OutputScales(x.gamma_M, w.beta));
}

Int8Rows ColumnsOf(const Int8Rows& x, int64_t first, int64_t count) {
  TERN_CHECK(first >= 0 && count > 0 && first + count <= x.k, first, " + ", count, " of ", x.k);
  const int64_t m = x.q_MK.size(0);
  Int8Rows out{
      at::zeros({m, kernels::T2PaddedK(count)}, x.q_MK.options()), x.gamma_M, {}, count, x.top};
  const at::Tensor part_MK = x.q_MK.narrow(1, first, count);
  out.q_MK.narrow(1, 0, count).copy_(part_MK);
  out.sum_M = part_MK.sum(1, /*keepdim=*/false, at::kInt);
  return out;
}

// One column more, which holds the largest value: the rows then quantize as the whole ones do.
Int8Rows QuantizeColumns(const at::Tensor& x_MK, const at::Tensor& amax_M) {
  const int64_t columns = x_MK.size(1);
  return ColumnsOf(QuantizeRows(at::cat({x_MK, amax_M.unsqueeze(1)}, 1)), 0, columns);
}

at::Tensor TernarySums(const Int8Rows& x, const TernaryWeight& w) {
  TERN_CHECK(x.k == w.k && x.q_MK.device().is_cpu(), x.k, " and ", w.k, " on ", x.q_MK.device());
  return ScaledProduct(x, w, at::ones_like(x.gamma_M));
}

bool SumsAreExact(int64_t k) { return 127 * k < (1 << 24); }

at::Tensor ScaleSums(const at::Tensor& acc_MN, const at::Tensor& gamma_M, float beta) {
  TERN_CHECK(acc_MN.device().is_cpu(), "on ", acc_MN.device());
  return acc_MN * OutputScales(gamma_M, beta).unsqueeze(1);
}

at::Tensor Dequantize(const TernaryWeight& w, float scale) {
  if (!w.t2_NC.device().is_cpu()) return neutral::Dequantize(w, scale);
  const int64_t n = w.t2_NC.size(0);
  at::Tensor out_NK = at::empty({n, w.k}, at::kFloat);
  const uint8_t* t2 = w.t2_NC.const_data_ptr<uint8_t>();
  float* out = out_NK.mutable_data_ptr<float>();
  at::parallel_for(0, n, kRowGrain, [&](int64_t begin, int64_t end) {
    kernels::DequantizeT2(t2, begin, end, w.k, scale, out, w.k);
  });
  return out_NK;
}

at::Tensor Dequantize(const Int8Rows& x) {
  if (!x.q_MK.device().is_cpu()) return neutral::Dequantize(x);
  const int64_t m = x.q_MK.size(0);
  at::Tensor out_MK = at::empty({m, x.k}, at::kFloat);
  const int8_t* q = x.q_MK.const_data_ptr<int8_t>();
  const float* gamma = x.gamma_M.const_data_ptr<float>();
  float* out = out_MK.mutable_data_ptr<float>();
  at::parallel_for(0, m, kRowGrain, [&](int64_t begin, int64_t end) {
    kernels::DequantizeRows(q, begin, end, x.k, x.q_MK.size(1), gamma, out, x.k);
  });
  return out_MK;
}

}  // namespace tern::quant
