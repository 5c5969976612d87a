// The frozen model that a student's losses compare with, whatever runs it: libtorch (here) or the
// engine (engine_teacher.h). Its last states of a micro-batch are made at once, its logits a chunk
// of rows at a time (logit_losses.h). Documents that share a sequence do not see each other.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

#include "data/batch.h"
#include "model/decoder.h"
#include "nn/precision.h"

namespace tern::distill {

class Teacher {
 public:
  virtual ~Teacher() = default;

  virtual const ModelConfig& config() const = 0;
  // What Logits takes, of sequences [begin, begin + count) of a batch: fp32 [count * T, D].
  // compute: of products with float weights in libtorch. features: null for none; filled by
  // libtorch only.
  virtual at::Tensor Hidden(const data::Batch& batch, int64_t begin, int64_t count,
                            nn::ComputeType compute, model::Capture* features) = 0;
  // fp32 [C, V] of rows [C, D] of them.
  virtual at::Tensor Logits(const at::Tensor& h_CD, nn::ComputeType compute) = 0;
  // Null when it is not libtorch's: it has no features then, and writes no text.
  virtual const model::Decoder* decoder() const { return nullptr; }
};

class DecoderTeacher : public Teacher {
 public:
  // REQUIRES: parameters without gradients.
  explicit DecoderTeacher(model::Decoder decoder) : decoder_(std::move(decoder)) {}

  const ModelConfig& config() const override { return decoder_.config(); }
  at::Tensor Hidden(const data::Batch& batch, int64_t begin, int64_t count, nn::ComputeType compute,
                    model::Capture* features) override;
  at::Tensor Logits(const at::Tensor& h_CD, nn::ComputeType compute) override;
  const model::Decoder* decoder() const override { return &decoder_; }

 private:
  model::Decoder decoder_;
};

}  // namespace tern::distill
