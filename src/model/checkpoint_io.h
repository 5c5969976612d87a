// Decoder <-> checkpoint: which datasets hold the parameters, and a decoder from any checkpoint.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/decoder.h"

namespace tern::model {

// A fp32 CPU tensor as a view of that name; the tensor must outlive the view.
checkpoint::TensorView ViewOf(const std::string& name, const at::Tensor& tensor);

// Lets `fill` write the elements of a contiguous tensor: where they are, or, when that is not the
// CPU's memory, into a copy on the host first.
void FillThroughHost(at::Tensor tensor, const std::function<void(void* data)>& fill);

// Fills a contiguous fp32 tensor in place. Throws FormatError for another shape or type.
void ReadInto(const checkpoint::CheckpointReader& reader, const std::string& name,
              const at::Tensor& tensor);

// The shape that the checkpoint says it holds (meta.state["model"]). Throws FormatError.
ModelConfig ConfigOf(const checkpoint::CheckpointReader& reader);
// Builds the decoder that the checkpoint describes (meta.state["model"]) and reads its parameters.
Decoder LoadDecoder(const checkpoint::CheckpointReader& reader);
// Throws InputError when the checkpoint holds another model than `config`, naming the fields that
// differ.
void CheckModel(const checkpoint::CheckpointReader& reader, const ModelConfig& config);

}  // namespace tern::model
