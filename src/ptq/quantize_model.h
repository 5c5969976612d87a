// `tern quantize`: a float model to a folder that engines load, layer by layer. Of a streamed model
// one layer is in memory, of the calibration its residual stream and one layer's Hessians. Killed
// at any moment, it goes on with the first layer that is not done. The result gets its name after
// it has been read again by the engine's reader and every matrix has the quantizer's very values.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "ptq/check.h"
#include "ptq/gptq.h"

namespace tern::ptq {

// Of AutoRound, when nothing else is said: as published.
inline constexpr int64_t kAutoRoundSteps = 200;

struct QuantizeOptions {
  std::string source, output;
  std::string tokenizer;    // Instead of the model's
  std::string to = "int4";  // scheme.h
  int64_t group = -1;       // -1: the scheme's own
  std::string container;    // scheme.h; empty: compressed-tensors
  std::string method;  // method.h, of GGUF rtn | imatrix; empty: gptq or imatrix with a calibration
  bool min_max = false;     // Ranges from the largest weights, no search
  std::string calibration;  // calibration.h; empty: none
  std::string field = "text";
  int64_t calibration_tokens = 65536, sequence = 512;
  GptqOptions gptq;
  int64_t auto_round_steps = 0;  // auto_round.h; 0: kAutoRoundSteps
  int64_t scale_steps = 0;       // scale_training.h, after the method; 0: none
  bool channel_scales = false;   // channel_scales.h, before the method; needs a calibration
  std::string imatrix;           // GGUF: importance.h; read when it exists, else written
  bool pure = false;             // GGUF: one type for all matrices
  bool allow_requantize = false;
  double max_kl = 0;  // Above 0: a result whose mean KL to the source is larger is refused
  int threads = 0;    // Of the engine that checks the result
  std::function<void(int64_t layers_done, int64_t layers)> progress;
};

struct QuantizeReport {
  int64_t layers = 0, matrices = 0, weights = 0;
  int64_t calibration_tokens = 0;
  int64_t fallbacks = 0;            // Matrices whose method failed; the ledger says why
  double bits_per_weight = 0;       // Of the quantized matrices, scales included
  int64_t size_bytes = 0;           // Of the tensors
  double error = 0, error_rtn = 0;  // Means over the matrices (ledger: error)
  int64_t kl_tokens = 0;            // Held-out tokens; 0 without a calibration
  double mean_kl = 0, top1_agreement = 0;
  std::string scheme;  // In words
};

// Notes what CompareWithSource found. Throws NumericError when max_kl is above 0 and exceeded.
void SetDivergence(const Divergence& found, double max_kl, QuantizeReport* report);

// Throws UsageError, InputError, FormatError, NumericError (weights that are not finite, a file
// that differs, max_kl), ResourceError, StoppedError on a stop signal.
QuantizeReport QuantizeModel(const QuantizeOptions& options);

}  // namespace tern::ptq
