// One matrix product as a case of tern bench.
#pragma once

#include <cstdint>
#include <string>

#include "engine/code_activations.h"
#include "engine_cli/bench.h"

namespace tern::engine_cli {

struct ProductShape {
  int64_t n = 0, k = 0;
};
// Of "NxK". Throws UsageError for a text that is none or a K that is no multiple of 256.
ProductShape ParseProductShape(const std::string& text);

// "tq2_0, q8_0, ...".
std::string ProductTypes();

// m tokens (fp32; rounding them is part of the time) times random weights of `type`, `shape` "NxK".
// With one token the matrices of a set beyond the caches take turns. Throws UsageError for a type
// or shape that is none.
BenchCase ProductCase(const std::string& type, const std::string& shape, int64_t m,
                      engine::CodeActivations activations);

}  // namespace tern::engine_cli
