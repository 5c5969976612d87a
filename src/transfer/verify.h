// Proof that an export is its checkpoint: the file is read again by the engine's readers, every
// BitLinear is compared code by code with the trainer's quantizer, every scale and every other
// value with what its type can hold, and the logits of both programs on the same tokens with a
// bound.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model_weights.h"
#include "model/decoder.h"
#include "text/tokenizer.h"

namespace tern::transfer {

struct WeightReport {
  int64_t matrices = 0;  // BitLinear matrices, all codes equal
  int64_t codes = 0;     // Their weights
  int64_t floats =
      0;  // Norms, embedding, head, dense matrices: values that round-trip through their type
};

// Throws NumericError that names the first tensor, element, found and wanted value, or a matrix
// whose inputs the file does not want as the decoder has them.
// hf/bitnet holds 1/beta, whose inverse is beta within one rounding; empty: a model file that may
// have been made of such a folder, or of any other source.
WeightReport CompareWeights(const model::Decoder& decoder, const engine::ModelWeights& weights,
                            const std::string& format);

// Throws NumericError that names the first piece (or rule) in which the file's tokenizer is not
// `tokenizer`: another text would come out of the same ids. Null: nothing is compared.
void CompareTokenizers(const text::Tokenizer* tokenizer, const engine::ModelWeights& weights);

struct LogitsReport {
  int64_t tokens = 0;
  double mean_kl = 0, max_kl = 0;  // KL(trainer || engine), nats a token
  double bound_mean_kl = 0;        // What mean_kl was held to
  double max_difference = 0;       // Largest |logit difference|
  double top1_agreement = 0;       // Share of tokens
};

// [T] fp64, nats: KL(ours, theirs) of rows of logits, [T, V]. Takes the room of a few rows in fp64.
at::Tensor KlOfRows(const at::Tensor& ours_TV, const at::Tensor& theirs_TV);

// Bound on the mean KL. Both programs compute the same integers from equal inputs, but attention
// and the head add in another order (relative 1e-7), and an activation that lies on a rounding
// boundary then moves by 1/127 of its row's maximum: measured 1e-6 to 1e-3 on trained and random
// models, where a wrong scale or layout gives more than 0.1. In deep models converted from dense
// ones, one moved activation moves others in every layer behind it: above this bound, such a model
// is held to kLastBits times what its own forward does when the last bits of its first norm's gain
// are other ones (SmolLM2-135M as ternary: 0.011, the engine 0.009 to 0.013).
inline constexpr double kMaxMeanKl = 5e-3;
inline constexpr double kLastBits = 4;

// Of dense models whose matrices the format holds exactly there is no such boundary, only the order
// of sums: measured 1e-13 to 4e-13 on small models.
inline constexpr double kMaxMeanKlExact = 1e-6;
// Dense models whose inputs were trained rounded (quantize.rules) are as ternary ones.
double MaxMeanKl(const model::Decoder& decoder, const std::string& format);

// Logits of `tokens` by the trainer's forward in fp32, with the file's own embedding and head
// values, and by the engine, which rounds inputs as the file asks where the decoder does. Throws
// NumericError above max_mean_kl and, of models with rounded inputs, what the last bits do.
LogitsReport CompareLogits(const model::Decoder& decoder, engine::ModelWeights weights,
                           const std::vector<int32_t>& tokens, int num_threads,
                           double max_mean_kl = kMaxMeanKl);

}  // namespace tern::transfer
