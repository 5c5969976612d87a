// Which of libtorch's back ends scaled_dot_product_attention may take. libtorch keeps the choice
// for the whole process.
#pragma once

#include <c10/core/Device.h>

#include <string>

#include "recipe/recipe.h"

namespace tern::train {

// kAuto allows all. kMath holds the [T, T] scores; kFlash never does. Throws ResourceError for
// kMemoryEfficient and kCudnn on a CPU, which has none, with `key` (such as train.attention).
void SelectAttention(recipe::AttentionBackend backend, const std::string& key,
                     const c10::Device& device = c10::kCPU);

}  // namespace tern::train
