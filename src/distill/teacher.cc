// See teacher.h.
#include "distill/teacher.h"

#include <ATen/core/grad_mode.h>

#include "model/batch_input.h"

namespace tern::distill {

at::Tensor DecoderTeacher::Hidden(const data::Batch& batch, int64_t begin, int64_t count,
                                  nn::ComputeType compute, model::Capture* features) {
  const at::NoGradGuard no_grad;
  return decoder_.Hidden(model::InputOf(batch, begin, count, decoder_.device()),
                         {compute, false, nullptr, features});
}

at::Tensor DecoderTeacher::Logits(const at::Tensor& h_CD, nn::ComputeType compute) {
  const at::NoGradGuard no_grad;
  return nn::MatMul(h_CD, decoder_.HeadWeight().detach().t(), compute);
}

}  // namespace tern::distill
