// See channel_scales.h.
#include "ptq/channel_scales.h"

#include <ATen/ops/mm.h>
#include <ATen/ops/ones_like.h>

#include <cmath>
#include <functional>

#include "base/error.h"
#include "ptq/gptq.h"

namespace tern::ptq {
namespace {

using quant::RangeSearch;
using quant::WeightFormat;

constexpr int kSteps = 20;        // Exponents 0, 1/20, ..., 19/20
constexpr double kFloor = 1e-4;   // Of inputs and scales: columns that are never used
constexpr float kLargest = 1e4f;  // Of s and 1/s: beyond, gains in bfloat16 would say nothing

// Geometric middle of the extremes at 1.
at::Tensor Normalized(const at::Tensor& s_K) {
  const at::Tensor s = s_K.clamp_min(kFloor);
  return (s / (s.max() * s.min()).sqrt()).clamp(1 / kLargest, kLargest).contiguous();
}

ChannelScales Search(const std::function<at::Tensor(double)>& candidate, const at::Tensor& like_K,
                     const std::function<double(const at::Tensor&)>& error) {
  ChannelScales best;
  best.s_K = at::ones_like(like_K);
  best.error = best.error_without = error(best.s_K);
  for (int step = 1; step < kSteps; ++step) {
    const double exponent = static_cast<double>(step) / kSteps;
    const at::Tensor s_K = Normalized(candidate(exponent));
    if (!s_K.isfinite().all().item<bool>()) continue;
    const double found = error(s_K);
    if (found < best.error) {
      best.s_K = s_K;
      best.error = found;
      best.exponent = exponent;
    }
  }
  return best;
}

at::Tensor AmaxOf(const std::vector<at::Tensor>& weights) {
  at::Tensor amax_K;
  for (const at::Tensor& w_NK : weights) {
    const at::Tensor here_K = w_NK.abs().amax(0);
    amax_K = amax_K.defined() ? amax_K.maximum(here_K) : here_K;
  }
  return amax_K.clamp_min(kFloor);
}

}  // namespace

ChannelScales FindAwqScales(const std::vector<at::Tensor>& weights, const at::Tensor& h_KK,
                            const WeightFormat& format, const RangeSearch& range) {
  const at::Tensor size_K = (h_KK.diagonal() / 2).sqrt().clamp_min(kFloor);
  const auto error = [&](const at::Tensor& s_K) {
    double total = 0;
    for (const at::Tensor& w_NK : weights) {
      const at::Tensor scaled = (w_NK * s_K).contiguous();
      total += OutputError(w_NK, quant::FakeQuantize(scaled, format, range) / s_K, h_KK);
    }
    return total / static_cast<double>(weights.size());
  };
  return Search([&](double exponent) { return size_K.pow(exponent); }, size_K, error);
}

ChannelScales FindSmoothScales(const std::vector<at::Tensor>& weights, const at::Tensor& x_MK,
                               const WeightFormat& format, const RangeSearch& range) {
  WeightFormat token = format;
  token.block_n = 1;
  token.block_k = 0;
  token.scale_dtype = quant::ScaleDtype::kF32;
  const at::Tensor amax_K = x_MK.abs().amax(0).clamp_min(kFloor), weight_K = AmaxOf(weights);
  std::vector<at::Tensor> outputs;
  for (const at::Tensor& w_NK : weights) outputs.push_back(at::mm(x_MK, w_NK.t()));
  const auto error = [&](const at::Tensor& s_K) {
    const at::Tensor x = quant::FakeQuantize((x_MK / s_K).contiguous(), token);
    double total = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      const at::Tensor w = quant::FakeQuantize((weights[i] * s_K).contiguous(), format, range);
      const double lost = (at::mm(x, w.t()) - outputs[i]).square().sum(at::kDouble).item<double>();
      const double power = outputs[i].square().sum(at::kDouble).item<double>();
      total += power > 0 ? lost / power : 0;
    }
    return total / static_cast<double>(weights.size());
  };
  return Search([&](double exponent) { return amax_K.pow(exponent) / weight_K.pow(1 - exponent); },
                amax_K, error);
}

}  // namespace tern::ptq
