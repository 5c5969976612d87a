// Proof, at any later time, that a quantized folder or GGUF file is what the quantizer made and
// stands for its source: every byte by the ledger, every matrix by an independent reader (the
// engine's) against the quantizer's values, the mistakes of traps.h, and with a source each matrix
// against the float one and the logits of both.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ptq/check.h"

namespace tern::ptq {

// Mean KL on the fixed text; 2-bit weights without calibration say nothing sensible and may be
// above, as a wrong layout, order of rows or direction of a scale is.
inline constexpr double kMaxVerifiedKl = 3.0;

struct VerifyOptions {
  std::string output;  // What is verified
  std::string source;  // Empty: only the ledger and the traps
  double max_kl = kMaxVerifiedKl;
  std::vector<int32_t> tokens = {};  // For the logits; empty: ProbeTokens
  int threads = 0;
};

struct VerifyReport {
  int64_t matrices = 0, tensors = 0, files = 0;  // Equal to the ledger's
  int64_t compared = 0;                          // Matrices held against the source
  double worst_error = 0;                        // Lost part of the power of one's weights
  std::string worst;                             // Its name
  int traps = 0;                                 // Checks of traps.h that applied
  Divergence divergence;                         // tokens 0: no source
};

// A folder or file that has a ledger, or is of a kind that quantizers write: not a ternary export.
bool IsQuantizedOutput(const std::string& path);

// Throws NumericError (tensor, matrix or file named) for what differs, FormatError and InputError
// for what cannot be read, UsageError when there is neither a ledger nor a source.
VerifyReport VerifyQuantized(const VerifyOptions& options);

}  // namespace tern::ptq
