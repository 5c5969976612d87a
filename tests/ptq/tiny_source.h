// What most tests of quantization start from: a small dense llama as a Hugging Face folder, and a
// text of 1,000 random tokens to calibrate on.
#pragma once

#include <ATen/Parallel.h>

#include <string>
#include <vector>

#include "data/mapped_tokens.h"
#include "ptq/quantize_model.h"
#include "tests/engine/tiny_files.h"
#include "tests/testing/temp_folder.h"

namespace tern::ptq {

// FOLDER/source and FOLDER/text.idx. One thread from now on.
inline void WriteTinySource(const testing::TempFolder& folder) {
  constexpr int64_t kVocabulary = 40;
  at::set_num_threads(1);
  testing::WriteHfFolder(
      testing::MakeTinyModel(testing::TinyConfig(ArchName::kLlama, LinearKind::kDense), 3),
      folder / "source");
  const std::vector<int32_t> ids = testing::RandomTokens(1000, kVocabulary, 5);
  data::MegatronWriter writer(folder / "text", kVocabulary);
  writer.AddDocument(ids.data(), 1000);
  writer.Commit();
}

// FOLDER/source to FOLDER/`name`; without a calibration.
inline QuantizeOptions TinyOptions(const testing::TempFolder& folder, const std::string& to,
                                   const std::string& name) {
  QuantizeOptions options;
  options.source = folder / "source";
  options.output = folder / name;
  options.to = to;
  options.sequence = 32;
  options.calibration_tokens = 320;
  options.threads = 1;
  return options;
}

}  // namespace tern::ptq
