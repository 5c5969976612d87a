// Proof that a quantized folder is what the quantizer made: an independent reader (the engine's)
// decodes every matrix, and the SHA-256 of its values must be the ledger's; and how far the model
// is from its source. Neither is in memory as a whole, only a layer of one of them at a time.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "arch/model_config.h"
#include "text/tokenizer.h"

namespace tern::ptq {

// Throws NumericError that names the first matrix whose values differ, FormatError when the folder
// cannot be read. `ledger`: lines with "tensor" and "values_sha256". Returns the matrices compared.
int64_t CheckValues(const std::string& output, const std::vector<nlohmann::json>& ledger);

struct Divergence {
  int64_t tokens = 0;
  double mean_kl = 0, top1_agreement = 0;  // KL(source || output), nats a token
};

// Of the logits of both models in memory at once, but for 16 tokens at least.
inline constexpr int64_t kCheckLogitsBytes = 16 << 20;

// Both by the engine, layer by layer (engine/streamed_model.h), the logits of a few tokens at a
// time. `source`: anything that engine::OpenModel takes, or a checkpoint, which is read as a whole
// (then the trainer's forward). Throws as engine::StreamedModel.
Divergence CompareWithSource(const std::string& source, const std::string& output,
                             const std::vector<int32_t>& tokens, int threads,
                             int64_t logits_bytes = kCheckLogitsBytes);

// Up to 64 ids for comparisons where the user gave no text: the beginning of a plain English
// paragraph, or, of a model without a tokenizer, ids spread evenly over the vocabulary (on which
// even a good 4-bit model may be a nat away).
std::vector<int32_t> ProbeTokens(const text::Tokenizer* tokenizer, const ModelConfig& config);

}  // namespace tern::ptq
