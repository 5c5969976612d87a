// Insertion of sub-norms (RMSNorm before o_proj and down_proj, BitDistill's SubLN, arXiv
// 2510.13998) into a model that was trained without: a gain of 1 would change what every layer
// gets.
#pragma once

#include "model/decoder.h"

namespace tern::model {

// `plain` has no sub-norms; `decoder` is the same model with them. Each gain becomes the least
// squares fit of gain * x / rms(x) to x over the tokens of `input`, one value a channel:
// g_d = sum_t x_td^2 / r_t / sum_t x_td^2 / r_t^2, r_t = sqrt(mean x_t^2 + eps). Where all tokens
// have one rms, the decoder then computes what `plain` does. A channel that is 0 everywhere gets
// the mean of r_t.
void FitSubNorms(const Decoder& plain, const DecoderInput& input, Decoder* decoder);

}  // namespace tern::model
