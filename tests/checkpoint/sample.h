// A small checkpoint whose every number follows from its step, so that a reader can tell whether
// the content belongs to the step that the name says.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace tern::checkpoint {

// Tensors of a step: a matrix of floats that spans several HDF5 chunks or a part of one, int64
// counters, an empty tensor.
class Sample {
 public:
  explicit Sample(int64_t step, int64_t rows = 37)
      : step_(step), rows_(rows), weight_(static_cast<size_t>(rows * 5)), moment_(weight_.size()) {
    for (size_t i = 0; i < weight_.size(); ++i) {
      weight_[i] = static_cast<float>(step) + static_cast<float>(i) * 0.25f;
      moment_[i] = -weight_[i];
    }
    counters_ = {step, step * 1'000'003, (int64_t{1} << 62) + step};
  }

  CheckpointMeta Meta(double validation_loss = 0.0) const {
    CheckpointMeta meta;
    meta.step = step_;
    if (validation_loss != 0.0) meta.metrics["validation_loss"] = validation_loss;
    meta.state = {{"sampler", {{"step", step_}, {"seed", (uint64_t{1} << 63) + 1}}},
                  {"loss", 1.0 / 3.0 + static_cast<double>(step_)},
                  {"recipe", "name: \xc3\xbc\n"}};
    return meta;
  }

  std::vector<TensorView> Tensors() const {
    return {{"/model/layers.0.attention.q", h5::Type::kF32, {rows_, 5}, weight_.data()},
            {"/optimizer/exp_avg/layers.0.attention.q", h5::Type::kF32, {rows_, 5}, moment_.data()},
            {"/counters", h5::Type::kI64, {3}, counters_.data()}};
  }

  // Fails the test unless `reader` gives this sample's content.
  void ExpectEqual(const CheckpointReader& reader) const {
    EXPECT_EQ(reader.meta().step, step_);
    EXPECT_EQ(reader.meta().kind, "train");
    EXPECT_EQ(reader.meta().state, Meta().state);
    std::vector<float> weight(weight_.size()), moment(weight_.size());
    std::vector<int64_t> counters(3);
    reader.Read("/model/layers.0.attention.q", h5::Type::kF32, {rows_, 5}, weight.data());
    reader.Read("/optimizer/exp_avg/layers.0.attention.q", h5::Type::kF32, {rows_, 5},
                moment.data());
    reader.Read("/counters", h5::Type::kI64, {3}, counters.data());
    EXPECT_EQ(weight, weight_);
    EXPECT_EQ(moment, moment_);
    EXPECT_EQ(counters, counters_);
  }

 private:
  int64_t step_, rows_;
  std::vector<float> weight_, moment_;
  std::vector<int64_t> counters_;
};

inline std::string WriteSample(const std::string& folder, int64_t step,
                               double validation_loss = 0.0) {
  const Sample sample(step);
  return WriteCheckpoint(folder, sample.Meta(validation_loss), sample.Tensors());
}

}  // namespace tern::checkpoint
