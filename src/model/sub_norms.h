// Insertion of sub-norms (RMSNorms right before linear layers, arch/model_config.h SubNorms) into a
// model that was trained without: a gain of 1 would change what every layer gets.
#pragma once

#include "model/decoder.h"

namespace tern::model {

// Why a model with norms placed as `from` says cannot be given those of `to`, or empty.
std::string WhyNotInserted(SubNorms from, SubNorms to);

// `decoder` is `plain` with more norms before its linear layers, and their gains are set. A norm
// that `plain` has under another name keeps its gain. The norm of a layer that reads a pre-norm
// takes that one's gain; the pre-norm, where it stays, gets a gain of 1, so what it gives has an
// rms of 1 and the layer reads what it did. Before o_proj and down_proj the gain is the least
// squares fit of gain * x / rms(x) to x over the tokens of `input`, one value a channel:
// g_d = sum_t x_td^2 / r_t / sum_t x_td^2 / r_t^2, r_t = sqrt(mean x_t^2 + eps). Where all tokens
// have one rms, the decoder then computes what `plain` does. A channel that is 0 everywhere gets
// the mean of r_t. REQUIRES: WhyNotInserted is empty.
void FitSubNorms(const Decoder& plain, const DecoderInput& input, Decoder* decoder);

}  // namespace tern::model
