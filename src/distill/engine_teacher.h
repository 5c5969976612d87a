// A teacher that the engine runs: its weights stay as the file has them (a quantized file's in its
// mapping, shared by the ranks of a machine) and are multiplied by the low-bit kernels of the CPU
// on the trainer's threads. A row's logits have the same bits in every micro-batch, on any number
// of ranks and threads (engine/text_pass.h). Logits only: no features, no text.
#pragma once

#include "distill/teacher.h"
#include "engine/model_weights.h"
#include "engine/text_pass.h"

namespace tern::distill {

class EngineTeacher : public Teacher {
 public:
  // Sequences of up to `longest` tokens. Throws InputError when that is more than its context.
  EngineTeacher(engine::ModelWeights weights, int64_t longest);

  const ModelConfig& config() const override { return weights_.config; }
  // The states before the last norm, in the CPU's memory; products are the engine's, whatever
  // `compute`.
  at::Tensor Hidden(const data::Batch& batch, int64_t begin, int64_t count, nn::ComputeType compute,
                    model::Capture* features) override;
  at::Tensor Logits(const at::Tensor& h_CD, nn::ComputeType compute) override;

 private:
  engine::ModelWeights weights_;
  engine::TextPass pass_;
};

}  // namespace tern::distill
