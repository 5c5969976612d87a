// A float model to one GGUF file in llama.cpp's block types and mixtures (gguf_mix.h), tensor by
// tensor: in memory is one matrix as fp32 and as blocks. Scales are those of ggml's reference
// quantizers, byte for byte. The file gets its name after it has been read again and the blocks of
// every tensor have the SHA-256 of what was encoded.
#pragma once

#include "ptq/gguf_budget.h"
#include "ptq/quantize_model.h"

namespace tern::ptq {

// `options.to` is a mixture. Writes options.output and, beside it, OUTPUT.ledger.jsonl. With a
// calibration the result is compared with the source on its held-out tokens. Throws as
// QuantizeModel.
QuantizeReport QuantizeGguf(const QuantizeOptions& options);

// The same with types that are chosen for the size that the options ask for (gguf_budget.h).
// `plan`: what was chosen. Needs a calibration.
QuantizeReport QuantizeGgufToSize(const QuantizeOptions& options, GgufPlan* plan);

// The sizes that could be had and their predicted KL; nothing is made but OUTPUT.partial for a
// while. Throws as QuantizeGgufToSize.
SizePlan GgufFront(const QuantizeOptions& options);

}  // namespace tern::ptq
