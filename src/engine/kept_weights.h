// What the engine keeps of a model's weights, for plans and reports: told without keeping them.
#pragma once

#include <cstdint>
#include <string>

#include "engine/model_source.h"

namespace tern::engine {

struct KeptWeights {
  int64_t bytes = 0;  // Of all parameters, in memory or as pages of the file that are read
  std::string types;  // Of the linear layers, that with most bytes first: "Q4_K, Q6_K"
};

// Reads every tensor once, one at a time. Throws FormatError as LoadModel.
KeptWeights KeptBy(ModelSource& source);

}  // namespace tern::engine
