// A training of a fraction of a second: two layers of width 32, a vocabulary of 64, tokens made
// here.
#pragma once

#include <cstdint>
#include <vector>

#include "data/token_file.h"
#include "recipe/recipe.h"

namespace tern::train {

inline recipe::Recipe TinyRecipe() {
  recipe::Recipe recipe;
  recipe.name = "tiny";
  recipe.model.vocab_size = 64;
  recipe.model.hidden_size = 32;
  recipe.model.intermediate_size = 64;
  recipe.model.num_layers = 2;
  recipe.model.num_heads = 4;
  recipe.model.num_kv_heads = 2;
  recipe.model.context_length = 16;
  return recipe;
}

inline recipe::TrainStage TinyStage() {
  recipe::TrainStage stage;
  stage.steps = 12;
  stage.tokens_per_step = 64;
  stage.sequence_length = 16;
  stage.eval_every = 4;
  stage.checkpoint_every = 3;
  stage.keep_last = 2;
  stage.health_every = 4;
  return stage;
}

// Text with something to learn: the next token is the last one plus 1 or 3.
inline data::TokenFile Tokens() {
  std::vector<std::vector<int32_t>> documents(6);
  uint32_t state = 1;
  for (auto& document : documents) {
    int32_t token = 3;
    for (int i = 0; i < 150; ++i) {
      document.push_back(token);
      state = state * 1664525u + 1013904223u;
      token = 3 + (token - 3 + (state >> 31 ? 3 : 1)) % 60;
    }
  }
  const std::vector<std::vector<int32_t>> validation = {documents.back()};
  documents.pop_back();
  return data::TokenFile::FromTokens(documents, validation, 64);
}

}  // namespace tern::train
