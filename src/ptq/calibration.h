// What the model reads while it is quantized: windows of a text, spread evenly over it, and one
// more that is kept for comparing the quantized model with its source.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace tern::ptq {

struct Calibration {
  at::Tensor tokens_BT;           // int64
  std::vector<int32_t> held_out;  // Up to T tokens that are not among them
  std::string sha256;             // Of all of these
};

// `path`: text, JSONL, JSON or Parquet (the key `field`), whose records are joined with an empty
// line, or tokens: a *.tokens.h5, the *.idx of a Megatron dataset. Windows of `sequence` tokens,
// `tokens` in all. Throws InputError when the text has fewer than 8 windows, or no tokenizer can
// read it, or ids are outside of the vocabulary.
Calibration ReadCalibration(const std::string& path, const std::string& field,
                            const text::Tokenizer* tokenizer, int64_t vocab_size, int64_t sequence,
                            int64_t tokens);

}  // namespace tern::ptq
