// What the model reads while it is quantized: windows of a text, spread evenly over it, and one
// more that is kept for comparing the quantized model with its source.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/token_source.h"
#include "ptq/float_model.h"
#include "ptq/quantize_model.h"
#include "text/tokenizer.h"

namespace tern::ptq {

struct Calibration {
  at::Tensor tokens_BT;           // int64
  std::vector<int32_t> held_out;  // Up to T tokens that are not among them
  std::string sha256;             // Of all of these
  std::string name;               // Of the text, for the importance matrix
};

// `path`: text, JSONL, JSON or Parquet (the key `field`), whose records are joined with an empty
// line, or tokens: a *.tokens.h5, the *.idx of a Megatron dataset. Windows of `sequence` tokens,
// `tokens` in all. Throws InputError when the text has fewer than 8 windows, or no tokenizer can
// read it, or ids are outside of the vocabulary.
Calibration ReadCalibration(const std::string& path, const std::string& field,
                            const text::Tokenizer* tokenizer, int64_t vocab_size, int64_t sequence,
                            int64_t tokens);

// The same of the training side of `text`: of a mixture each part has the windows that its weight
// gives it, and the held-out window is the last of the part with the largest weight. Only what is
// chosen is read.
Calibration ReadCalibration(const data::TokenSource& text, int64_t vocab_size, int64_t sequence,
                            int64_t tokens);

// What the options ask for, in sequences that the model can read; nothing: no calibration.
std::optional<Calibration> CalibrationOf(const QuantizeOptions& options, const FloatModel& model);

}  // namespace tern::ptq
