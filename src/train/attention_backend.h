// Which of libtorch's back ends scaled_dot_product_attention may take. libtorch keeps the choice
// for the whole process.
#pragma once

#include "recipe/recipe.h"

namespace tern::train {

// kAuto allows all. kMath holds the [T, T] scores; kFlash never does. Throws ResourceError for
// kMemoryEfficient and kCudnn, which CPUs do not have, with `key` (such as train.attention).
void SelectAttention(recipe::AttentionBackend backend, const std::string& key);

}  // namespace tern::train
