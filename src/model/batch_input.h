// From the data module's plain arrays to the decoder's tensors.
#pragma once

#include <cstdint>

#include "data/batch.h"
#include "model/decoder.h"

namespace tern::model {

// The decoder's input for sequences [begin, begin + count) of a batch.
DecoderInput InputOf(const data::Batch& batch, int64_t begin, int64_t count);
// Targets of those sequences, int32 [count * T], -1 where nothing is predicted.
at::Tensor TargetsOf(const data::Batch& batch, int64_t begin, int64_t count);

}  // namespace tern::model
