// See sensitivity.h. Scores of independently drawn labels have mean zero and are uncorrelated, so
// the square of a sequence's summed gradient has the sum of its tokens' squares as expectation: one
// backward pass serves all tokens of a sequence.
#include "ptq/sensitivity.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/multinomial.h>

#include <algorithm>

#include "base/stop_signal.h"
#include "model/decoder.h"

namespace tern::ptq {
namespace {

constexpr int64_t kSequences = 8;
constexpr uint64_t kSeed = 20150319;

model::Decoder DecoderOf(FloatModel* model) {
  const at::NoGradGuard no_grad;
  model::Decoder decoder(model->config());
  for (const model::Parameter& parameter : decoder.parameters()) {
    at::Tensor value = parameter.value;  // A handle to the same tensor
    value.copy_(model->Read(parameter.spec));
  }
  return decoder;
}

}  // namespace

Sensitivity MeasureSensitivity(FloatModel* model, const at::Tensor& tokens_BT) {
  const model::Decoder decoder = DecoderOf(model);
  const at::AutoGradMode with_gradients(true);
  const int64_t count = std::min(kSequences, tokens_BT.size(0));
  const auto generator = at::detail::createCPUGenerator(kSeed);
  Sensitivity out;
  for (int64_t i = 0; i < count; ++i) {
    ThrowIfStopped("sensitivity was measured, of which nothing is kept");
    const at::Tensor logits_TV =
        decoder.Logits({tokens_BT.slice(0, i, i + 1).contiguous(), {}, {}}, {});
    const at::Tensor log_TV = at::log_softmax(logits_TV, 1);
    const at::Tensor drawn_T1 =
        at::multinomial(log_TV.detach().exp(), 1, /*replacement=*/true, generator);
    log_TV.gather(1, drawn_T1).sum().backward();
    for (const model::Parameter& parameter : decoder.parameters()) {
      at::Tensor gradient = parameter.value.grad();
      if (parameter.spec.shape.size() == 2 && gradient.defined()) {
        const at::Tensor rows_N = gradient.square().sum(1, /*keepdim=*/false, at::kDouble);
        const double* rows = rows_N.const_data_ptr<double>();
        std::vector<double>& sums = out[parameter.spec.name];
        sums.resize(static_cast<size_t>(rows_N.numel()));
        for (size_t n = 0; n < sums.size(); ++n)
          sums[n] += rows[n] / static_cast<double>(count * tokens_BT.size(1));
      }
      if (gradient.defined()) gradient.zero_();
    }
  }
  return out;
}

}  // namespace tern::ptq
