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

// Linear layers that read a pre-norm.
struct Reader {
  const char* linear;
  const char* pre_norm;
};
constexpr Reader kReaders[] = {{"self_attn.q_proj", "input_layernorm"},
                               {"self_attn.k_proj", "input_layernorm"},
                               {"self_attn.v_proj", "input_layernorm"},
                               {"mlp.gate_proj", "post_attention_layernorm"},
                               {"mlp.up_proj", "post_attention_layernorm"}};
// The others, and what they read.
struct Output {
  const char* linear;
  at::Tensor LayerFeatures::*input;
};
constexpr Output kOutputs[] = {{"self_attn.o_proj", &LayerFeatures::o_input_MD},
                               {"mlp.down_proj", &LayerFeatures::down_input_MF}};

void MoveGains(const Decoder& plain, const std::string& prefix, Decoder* decoder) {
  for (const Reader& reader : kReaders) {
    const std::string pre_norm = StrCat(prefix, reader.pre_norm, ".weight");
    const std::string own = OwnNorm(decoder->config(), reader.linear);
    decoder->Get(StrCat(prefix, own, ".weight")).copy_(plain.Get(pre_norm));
    if (decoder->config().HasPreNorms()) decoder->Get(pre_norm).fill_(1);
  }
}

}  // namespace

std::string WhyNotInserted(SubNorms from, SubNorms to) {
  if (from == to || from == SubNorms::kNone) return "";
  const bool more = to == SubNorms::kEveryLinear || to == SubNorms::kEveryLinearOnly;
  if (from == SubNorms::kOutputs && more) return "";
  return StrCat("a model with norms placed as ", ToString(from), " cannot be given those of ",
                ToString(to), ": norms are added, not taken away");
}

void FitSubNorms(const Decoder& plain, const DecoderInput& input, Decoder* decoder) {
  TERN_CHECK(WhyNotInserted(plain.config().sub_norms, decoder->config().sub_norms).empty(),
             "sub-norms");
  const at::NoGradGuard no_grad;
  Capture capture;
  for (int64_t l = 0; l < plain.config().num_layers; ++l) capture.layers.insert(l);
  ForwardOptions options;
  options.capture = &capture;
  if (!plain.config().HasOutputNorms()) plain.Hidden(input, options);
  for (const int64_t layer : capture.layers) {
    const std::string prefix = StrCat("model.layers.", layer, ".");
    if (decoder->config().HasInputNorms()) MoveGains(plain, prefix, decoder);
    for (const Output& output : kOutputs) {
      const std::string own = OwnNorm(decoder->config(), output.linear);
      const std::string before = OwnNorm(plain.config(), output.linear);
      decoder->Get(StrCat(prefix, own, ".weight"))
          .copy_(before.empty()
                     ? FittedGain(capture.features.at(layer).*output.input, plain.config().norm_eps)
                     : plain.Get(StrCat(prefix, before, ".weight")));
    }
  }
}

}  // namespace tern::model
