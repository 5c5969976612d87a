// See gpu_kernels.h.
#include "quant/gpu_kernels.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <memory>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "kernels/device/device.h"
#include "kernels/ternary_backward/ternary_backward.h"
#include "kernels/ternary_pack/t2.h"
#include "kernels/ternary_quantize/ternary_quantize.h"

namespace tern::quant {
namespace {

constexpr void* kDefaultStream = nullptr;

void Check(const char* what, const char* error) {
  if (error != nullptr) throw ResourceError(StrCat("GPU: ", what, ": ", error));
}

at::Tensor EmptyOn(const at::Tensor& like, at::IntArrayRef sizes, at::ScalarType type) {
  return at::empty(sizes, like.options().dtype(type));
}

// A process has one GPU.
struct Opened {
  std::unique_ptr<kernels::Device> device;
  std::optional<GpuKernels> kernels;
};

Opened Open(int index) {
  Opened opened;
  try {
    opened.device = kernels::Device::Open(StrCat("cuda:", index));
    opened.kernels.emplace(opened.device->kernels());
  } catch (const ResourceError& error) {
    LogWarn(
        "ternary layers take libtorch's operations, which are slow, instead of tern's kernels: ",
        error.what());
  }
  return opened;
}

}  // namespace

const GpuKernels* GpuKernels::For(const at::Tensor& tensor) {
  if (!tensor.is_cuda()) return nullptr;
  static const Opened opened = Open(tensor.device().index());
  return opened.kernels ? &*opened.kernels : nullptr;
}

at::Tensor GpuKernels::AbsBlockSums(const at::Tensor& w_NK) const {
  const int64_t count = w_NK.numel();
  at::Tensor sums_B =
      EmptyOn(w_NK, {(count + kernels::kAbsMeanBlock - 1) / kernels::kAbsMeanBlock}, at::kFloat);
  if (count == 0) return sums_B;
  at::Tensor beta = EmptyOn(w_NK, {1}, at::kFloat);
  Check("scale of weights",
        table_.ternary_scale(w_NK.const_data_ptr<float>(), count, sums_B.mutable_data_ptr<float>(),
                             beta.mutable_data_ptr<float>(), kDefaultStream));
  return sums_B;
}

TernaryWeight GpuKernels::QuantizeTernary(const at::Tensor& w_NK, float beta,
                                          const at::Tensor& previous_NC) const {
  const int64_t n = w_NK.size(0), k = w_NK.size(1);
  TernaryWeight out;
  out.beta = beta;
  out.k = k;
  out.t2_NC = EmptyOn(w_NK, {n, kernels::T2RowBytes(k)}, at::kByte);
  const at::Tensor on_device = at::full({1}, double{beta}, w_NK.options());
  static_assert(sizeof(kernels::TernaryCounts) == 2 * sizeof(int64_t));
  at::Tensor counts = at::zeros({2}, w_NK.options().dtype(at::kLong));
  kernels::TernaryQuantizeCudaArgs args{};
  args.w = w_NK.const_data_ptr<float>();
  args.beta = on_device.const_data_ptr<float>();
  args.t2 = out.t2_NC.mutable_data_ptr<uint8_t>();
  args.previous = previous_NC.defined() ? previous_NC.const_data_ptr<uint8_t>() : nullptr;
  args.counts = static_cast<kernels::TernaryCounts*>(counts.mutable_data_ptr());
  args.n = n;
  args.k = static_cast<int>(k);
  args.padded_k = static_cast<int>(kernels::T2PaddedK(k));
  Check("codes of weights", table_.ternary_quantize(args, kDefaultStream));
  counts = counts.cpu();
  out.zeros = counts.const_data_ptr<int64_t>()[0];
  out.flips = counts.const_data_ptr<int64_t>()[1];
  return out;
}

Int8Rows GpuKernels::QuantizeRows(const at::Tensor& x_MK) const {
  const int64_t m = x_MK.size(0), k = x_MK.size(1), padded_k = kernels::T2PaddedK(k);
  Int8Rows out;
  out.k = k;
  out.q_MK = EmptyOn(x_MK, {m, padded_k}, at::kChar);
  out.gamma_M = EmptyOn(x_MK, {m}, at::kFloat);
  out.sum_M = EmptyOn(x_MK, {m}, at::kInt);
  kernels::AbsmaxQuantizeArgs args{};
  args.x = x_MK.const_data_ptr<float>();
  args.q = out.q_MK.mutable_data_ptr<int8_t>();
  args.gamma = out.gamma_M.mutable_data_ptr<float>();
  args.sum = out.sum_M.mutable_data_ptr<int32_t>();
  args.m = static_cast<int>(m);
  args.k = static_cast<int>(k);
  args.padded_k = static_cast<int>(padded_k);
  args.ldx = k;
  args.ldq = padded_k;
  Check("codes of inputs", table_.absmax_quantize(args, kDefaultStream));
  return out;
}

at::Tensor GpuKernels::TernaryMatMul(const Int8Rows& x, const TernaryWeight& w) const {
  const int64_t m = x.q_MK.size(0), n = w.t2_NC.size(0), padded_k = x.q_MK.size(1);
  at::Tensor out_scale_M = at::empty_like(x.gamma_M), y_MN = EmptyOn(x.gamma_M, {m, n}, at::kFloat);
  Check("scales of a product",
        table_.out_scale(x.gamma_M.const_data_ptr<float>(), w.beta, m,
                         out_scale_M.mutable_data_ptr<float>(), kDefaultStream));
  kernels::TernaryLinearArgs args{};
  args.w_t2 = w.t2_NC.const_data_ptr<uint8_t>();
  args.x = x.q_MK.const_data_ptr<int8_t>();
  args.x_sum = x.sum_M.const_data_ptr<int32_t>();
  args.out_scale = out_scale_M.const_data_ptr<float>();
  args.y = y_MN.mutable_data_ptr<float>();
  args.m = static_cast<int>(m);
  args.n = static_cast<int>(n);
  args.padded_k = static_cast<int>(padded_k);
  args.ldx = static_cast<int>(padded_k);
  args.ldy = static_cast<int>(n);
  Check("ternary product", table_.ternary_linear(args, kDefaultStream));
  return y_MN;
}

GpuKernels::RoundedGradient GpuKernels::RoundGradient(const at::Tensor& dy_MN,
                                                      const at::Tensor& gamma_M, bool plain,
                                                      bool scaled) const {
  const int64_t m = dy_MN.size(0), n = dy_MN.size(1), columns = kernels::GradientColumns(n);
  RoundedGradient out;
  out.n = n;
  kernels::RoundGradientArgs args;
  const auto rounded = [&](at::Tensor* to) {
    *to = EmptyOn(dy_MN, {m, columns}, at::kBFloat16);
    return static_cast<uint16_t*>(to->mutable_data_ptr());
  };
  args.dy = dy_MN.const_data_ptr<float>();
  if (plain) args.plain = rounded(&out.plain_MC);
  if (scaled) args.scaled = rounded(&out.scaled_MC);
  if (scaled) args.gamma = gamma_M.const_data_ptr<float>();
  args.m = m;
  args.n = n;
  args.lddy = n;
  args.ldo = columns;
  Check("rounding of gradients", table_.round_gradient(args, kDefaultStream));
  return out;
}

void GpuKernels::AddInputGradient(const RoundedGradient& dy, const TernaryWeight& w,
                                  at::Tensor* dx_MK) const {
  kernels::TernaryInputGradientArgs args;
  args.add = dx_MK->defined();
  args.m = dy.plain_MC.size(0);
  args.n = dy.n;
  args.k = w.k;
  if (!args.add) *dx_MK = EmptyOn(dy.plain_MC, {args.m, args.k}, at::kFloat);
  args.dy = static_cast<const uint16_t*>(dy.plain_MC.const_data_ptr());
  args.w_t2 = w.t2_NC.const_data_ptr<uint8_t>();
  args.dx = dx_MK->mutable_data_ptr<float>();
  args.beta = w.beta;
  args.lddy = dy.plain_MC.size(1);
  args.lddx = args.k;
  Check("gradient of inputs", table_.ternary_input_gradient(args, kDefaultStream));
}

at::Tensor GpuKernels::WeightGradient(const RoundedGradient& dy, const Int8Rows& x) const {
  kernels::TernaryWeightGradientArgs args;
  args.m = dy.scaled_MC.size(0);
  args.n = dy.n;
  args.k = x.k;
  at::Tensor dw_NK = EmptyOn(dy.scaled_MC, {args.n, args.k}, at::kFloat);
  args.dy = static_cast<const uint16_t*>(dy.scaled_MC.const_data_ptr());
  args.x = x.q_MK.const_data_ptr<int8_t>();
  args.dw = dw_NK.mutable_data_ptr<float>();
  args.lddy = dy.scaled_MC.size(1);
  args.ldx = x.q_MK.size(1);
  args.lddw = args.k;
  Check("gradient of weights", table_.ternary_weight_gradient(args, kDefaultStream));
  return dw_NK;
}

}  // namespace tern::quant
