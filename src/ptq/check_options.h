// Everything about the options of a quantization that can be refused before a tensor or a text is
// read: names, and what goes with what and with the model's shape. The command and a recipe's stage
// both come through here.
#pragma once

#include "ptq/quantize_model.h"

namespace tern::ptq {

// Throws UsageError, InputError, RecipeError (a shape that no architecture has).
void CheckOptions(const QuantizeOptions& options, const ModelConfig& config);

}  // namespace tern::ptq
