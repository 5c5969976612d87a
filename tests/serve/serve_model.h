// A tiny model with a vocabulary of bytes as an engine, for the tests of the server: every text is
// some tokens, and every token some text.
#pragma once

#include <string>

#include "engine/engine.h"
#include "engine/model_source.h"
#include "tests/engine/tiny_files.h"
#include "tests/engine/tiny_vocabulary.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {

inline void WriteServeModel(const std::string& path) {
  const text::PieceTable table = ByteVocabulary();
  ModelConfig config = TinyConfig(ArchName::kLlama);
  config.vocab_size = static_cast<int64_t>(table.pieces.size());
  const TinyModel model = MakeTinyModel(config, 111);
  GgufOptions options;
  options.tokenizer = &table;
  WriteGguf(model, ArchName::kLlama, path, options);
}

// One for all tests of a program. With several threads it shares the choosing of tokens among
// them, too; with one it is quick on a busy machine.
template <int threads>
const engine::Engine& ServeEngine() {
  static const TempFolder folder;
  static const engine::Engine engine(
      [] {
        WriteServeModel(folder / "model.gguf");
        return engine::LoadModel(folder / "model.gguf");
      }(),
      threads);
  return engine;
}

}  // namespace tern::testing
