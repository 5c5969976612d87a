// Decoder <-> checkpoint: which datasets hold the parameters, and a decoder from any checkpoint.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/decoder.h"

namespace tern::model {

// Views of the parameters under /model/, valid while the decoder lives.
std::vector<checkpoint::TensorView> ParameterViews(const Decoder& decoder);

// A fp32 CPU tensor as a view of that name; the tensor must outlive the view.
checkpoint::TensorView ViewOf(const std::string& name, const at::Tensor& tensor);

// Fills a contiguous fp32 CPU tensor in place. Throws FormatError for another shape or type.
void ReadInto(const checkpoint::CheckpointReader& reader, const std::string& name,
              const at::Tensor& tensor);

// The shape that the checkpoint says it holds (meta.state["model"]). Throws FormatError.
ModelConfig ConfigOf(const checkpoint::CheckpointReader& reader);
// Builds the decoder that the checkpoint describes (meta.state["model"]) and reads its parameters.
Decoder LoadDecoder(const checkpoint::CheckpointReader& reader);
// Reads the parameters into a decoder of the recipe. Throws InputError when the checkpoint holds
// another model, naming the fields that differ.
void ReadParameters(const checkpoint::CheckpointReader& reader, const Decoder& decoder);

}  // namespace tern::model
