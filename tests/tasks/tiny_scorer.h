// A tiny random model with a tokenizer of bytes, loaded from a GGUF file of its own.
#pragma once

#include <optional>
#include <string>

#include "engine/model_source.h"
#include "tasks/engine_scorer.h"
#include "tests/engine/tiny_files.h"
#include "tests/engine/tiny_vocabulary.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {

class TinyScorer {
 public:
  explicit TinyScorer(const tasks::EngineScorerOptions& options = {}, int threads = 1,
                      uint64_t seed = 51, bool add_bos = true) {
    const text::PieceTable table = ByteVocabulary();
    ModelConfig config = TinyConfig(ArchName::kLlama);
    config.vocab_size = static_cast<int64_t>(table.pieces.size());
    GgufOptions file;
    file.tokenizer = &table;
    file.add = [&](formats::GgufWriter& writer) {
      writer.AddBool("tokenizer.ggml.add_bos_token", add_bos);
    };
    path_ = folder_ / "model.gguf";
    WriteGguf(MakeTinyModel(config, seed), ArchName::kLlama, path_, file);
    engine_.emplace(engine::LoadModel(path_), threads);
    scorer_.emplace(*engine_, options);
  }

  tasks::EngineScorer& operator*() { return *scorer_; }
  tasks::EngineScorer* operator->() { return &*scorer_; }
  const engine::Engine& engine() const { return *engine_; }
  const std::string& path() const { return path_; }

 private:
  TempFolder folder_;
  std::string path_;
  std::optional<engine::Engine> engine_;
  std::optional<tasks::EngineScorer> scorer_;
};

}  // namespace tern::testing
