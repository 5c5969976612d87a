// From the data module's plain arrays to the decoder's tensors.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

#include "data/batch.h"
#include "model/decoder.h"

namespace tern::model {

// The decoder's input for sequences [begin, begin + count) of a batch, in the memory of `device`: a
// GPU gets it through pinned host memory, while the host goes on.
DecoderInput InputOf(const data::Batch& batch, int64_t begin, int64_t count,
                     const at::Device& device = at::kCPU);
// Targets of those sequences, int32 [count * T], -1 where nothing is predicted.
at::Tensor TargetsOf(const data::Batch& batch, int64_t begin, int64_t count,
                     const at::Device& device = at::kCPU);

}  // namespace tern::model
