// A file of Q4_1 blocks for a teacher that the engine runs.
#pragma once

#include <string>

#include "tests/engine/tiny_blocks.h"

namespace tern::train {

inline void WriteQuantizedTeacher(const ModelConfig& config, const std::string& path) {
  tern::testing::TinyModel model = tern::testing::MakeTinyModel(config, /*seed=*/3);
  const tern::testing::TinyBlocks blocks = tern::testing::MakeBlocks(
      formats::GgmlType::kQ4_1, formats::GgmlType::kQ8_0, &model, /*seed=*/5);
  tern::testing::GgufOptions options;
  options.linear = formats::GgmlType::kQ4_1;
  options.blocks = &blocks;
  tern::testing::WriteGguf(model, ArchName::kLlama, path, options);
}

}  // namespace tern::train
