// A tiny model in the engine's memory without a file between: for shapes that a format has no
// place for.
#pragma once

#include "engine/weight_table.h"
#include "kernels/ternary_pack/t2.h"
#include "tests/engine/tiny_model.h"

namespace tern::testing {

inline engine::ModelWeights WeightsOf(const TinyModel& model) {
  const auto floats = [&](const ParameterSpec& spec) {
    return engine::DenseMatrix{model.floats.at(spec.name), spec.shape[0], spec.shape[1]};
  };
  const auto linear = [&](const ParameterSpec& spec) -> engine::LinearMatrix {
    const auto found = model.ternary.find(spec.name);
    if (found == model.ternary.end()) return floats(spec);
    engine::TernaryMatrix matrix;
    matrix.scale = found->second.beta;
    matrix.n = spec.shape[0];
    matrix.k = spec.shape[1];
    const int64_t row_bytes = kernels::T2RowBytes(matrix.k);
    matrix.t2.resize(static_cast<size_t>(matrix.n * row_bytes));
    for (int64_t row = 0; row < matrix.n; ++row) {
      kernels::PackT2Row(found->second.codes.data() + row * matrix.k, matrix.k,
                         matrix.t2.data() + row * row_bytes);
    }
    return matrix;
  };
  engine::ModelWeights weights;
  weights.config = model.config;
  engine::FillWeights(
      {[&](const ParameterSpec& spec) { return model.floats.at(spec.name); },
       [&](const ParameterSpec& spec) { return engine::TableMatrix(floats(spec)); }, linear},
      &weights);
  return weights;
}

}  // namespace tern::testing
