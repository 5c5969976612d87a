// A model trained with fake quantizers as a compressed-tensors folder (kPackedFormat): the very
// codes and scales of the training's forward pass in the layouts of tern quantize
// (packed_tensors.h). One config_group a format of weights, so rules may differ from layer to
// layer. Activations are not quantized, as they were not in training. Embedding and head are BF16;
// norms, biases and layers without a rule are F32, so that nothing of them is rounded.
#pragma once

#include <string>

#include "checkpoint/checkpoint.h"
#include "model/decoder.h"
#include "transfer/export.h"

namespace tern::ptq {

// `shipped`: qat::LoadShipped of the checkpoint, which every matrix of the finished folder is
// compared with. Throws RecipeError for a checkpoint without quantize.rules or with one whose
// levels no format has; else as transfer::Export.
void ExportPacked(const checkpoint::CheckpointReader& checkpoint, const model::Decoder& shipped,
                  const transfer::ExportText& text, const std::string& path);

}  // namespace tern::ptq
