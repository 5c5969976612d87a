// Importance matrices as llama.cpp has them: for each matrix the sum of squares of its inputs,
// column by column, over a calibration text. GGUF's block types weigh the errors of their weights
// with it. Collected with the float model, or read from the file of llama-imatrix, whose form is
// also written.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ptq/activation_room.h"
#include "ptq/calibration.h"
#include "ptq/float_model.h"

namespace tern::ptq {

// Mean square of the inputs of each linear layer, [K], by parameter name.
using Importance = std::map<std::string, std::vector<float>>;

// Runs the model layer by layer; memory as in block_pass.h, activations in `room`.
Importance CollectImportance(FloatModel* model, const at::Tensor& tokens_BT,
                             const ActivationRoom& room = {});

// GGUF with general.type imatrix, tensors <name>.in_sum2 and <name>.counts. `tokens`: of the
// calibration; `dataset`: its name. Writing is atomic; reading throws FormatError when the file is
// not one, InputError when a layer of the model is missing in it or has another width.
void WriteImportance(const std::string& path, const Importance& importance, int64_t tokens,
                     int64_t sequence, const std::string& dataset);
Importance ReadImportance(const std::string& path, const ModelConfig& config);

}  // namespace tern::ptq
