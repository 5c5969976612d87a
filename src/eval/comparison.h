// A decoder beside the one it is to be like (its teacher, or the model it was made from): losses
// and KL divergence on the same tokens, and how far block outputs are apart.
#pragma once

#include <cstdint>
#include <vector>

#include "data/token_source.h"
#include "eval/perplexity.h"
#include "model/decoder.h"

namespace tern::eval {

struct Comparison {
  double loss = 0, reference_loss = 0;  // Mean negative log-likelihood, nats a token
  double mean_kl = 0;                   // KL(reference, decoder), nats a token
  int64_t tokens = 0;                   // Predicted tokens
  bool complete = true;                 // False: a stop signal ended it early
};

// Reads the windows that Perplexity reads, with the same loss; of `options` it takes no group and
// no source. Throws InputError when the vocabularies have other sizes, the split is too short or no
// token that is read has a label.
Comparison Compare(const model::Decoder& decoder, const model::Decoder& reference,
                   const data::TokenSource& tokens, const PerplexityOptions& options);

// For each block, sum |h - r|^2 / sum |r|^2 over its outputs h and the reference's r on the first
// max_tokens of the options (one window at least). Empty when the two have other numbers of blocks
// or other widths.
std::vector<double> BlockErrors(const model::Decoder& decoder, const model::Decoder& reference,
                                const data::TokenSource& tokens, const PerplexityOptions& options);

}  // namespace tern::eval
