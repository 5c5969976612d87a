// See sub_norms.h.
#include "model/sub_norms.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/where.h>

#include "base/error.h"

namespace tern::model {
namespace {

at::Tensor FittedGain(const at::Tensor& x_MD, double eps) {
  const at::Tensor squares_MD = x_MD.to(at::kDouble).square();
  const at::Tensor rms_M1 = squares_MD.mean(1, /*keepdim=*/true).add(eps).sqrt();
  const at::Tensor above_D = squares_MD.div(rms_M1).sum(0);
  const at::Tensor below_D = squares_MD.div(rms_M1.square()).sum(0);
  return at::where(below_D > 0, above_D / below_D, rms_M1.mean()).to(at::kFloat);
}

}  // namespace

void FitSubNorms(const Decoder& plain, const DecoderInput& input, Decoder* decoder) {
  TERN_CHECK(!plain.config().sub_norms && decoder->config().sub_norms, "sub-norms");
  const at::NoGradGuard no_grad;
  Capture capture;
  for (int64_t l = 0; l < plain.config().num_layers; ++l) capture.layers.insert(l);
  ForwardOptions options;
  options.capture = &capture;
  plain.Hidden(input, options);
  for (const auto& [layer, features] : capture.features) {
    const std::string prefix = StrCat("model.layers.", layer, ".");
    const double eps = plain.config().norm_eps;
    decoder->Get(prefix + "self_attn.attn_sub_norm.weight")
        .copy_(FittedGain(features.o_input_MD, eps));
    decoder->Get(prefix + "mlp.ffn_sub_norm.weight").copy_(FittedGain(features.down_input_MF, eps));
  }
}

}  // namespace tern::model
