// A model trained with fake quantizers as the very codes and scales of the training's forward pass.
// kPackedFormat: a compressed-tensors folder in the layouts of tern quantize (packed_tensors.h),
// one config_group a format of weights, so that rules may differ from layer to layer. Its
// input_activations are those of the training (inputs: int8_dynamic, fp8_dynamic), or none.
// Embedding and head are BF16; norms, biases and layers without a rule are F32, so that nothing of
// them is rounded. kPackedGguf: Q4_0 and Q8_0 matrices in a GGUF file (transfer/gguf_export.h).
#pragma once

#include <string>

#include "checkpoint/checkpoint.h"
#include "model/decoder.h"
#include "transfer/export.h"

namespace tern::ptq {

// `shipped`: qat::LoadShipped of the checkpoint, which every matrix of the finished export is
// compared with. Throws RecipeError for a checkpoint without quantize.rules or with one whose
// levels or inputs options.format does not have; else as transfer::Export. REQUIRES:
// HoldsTrainedCodes(options.format).
void ExportPacked(const checkpoint::CheckpointReader& checkpoint, const model::Decoder& shipped,
                  const transfer::ExportText& text, const transfer::ExportOptions& options,
                  const std::string& path);

}  // namespace tern::ptq
