// Training on what a model writes instead of the text. By the student (on-policy distillation, GKD:
// Agarwal et al., arXiv 2306.13649): the student continues the step's prompts, and the losses
// against the teacher count on the tokens it wrote, with their gradient through the student's
// distributions there, not through the choice. By the teacher (sequence-level distillation: Kim and
// Rush, arXiv 1606.07947): the student learns what the teacher writes, by cross-entropy too.
// Everything is a pure function of seed, step, row and position and of the writer's parameters, so
// that a run that is resumed writes the same tokens, and so do ranks that each write their rows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/batch.h"
#include "model/decoder.h"
#include "nn/precision.h"
#include "recipe/recipe.h"

namespace tern::distill {

// Whether update `step` (from 0) trains on generated text: with probability config.share.
bool IsGenerated(const recipe::GeneratedConfig& config, uint64_t seed, const std::string& stage_id,
                 int64_t step);

// Tokens of row `row` that are kept as its prompt, of its first document: prompt_tokens of them, or
// those before and at the first that has a label, 0 when none has one.
int64_t PromptTokens(const recipe::GeneratedConfig& config, const data::Batch& batch, int64_t row);

struct WriteOptions {
  nn::ComputeType compute = nn::ComputeType::kFp32;
  double quantized_share = 1;
  double temperature = 1;   // 0: the most probable token, of equals the first
  int64_t tokens = 0;       // Written at most; 0: to the end of the sequence
  int32_t stop_token = -1;  // Ends a text; -1: none
  std::string stream;       // Name of the random numbers
  uint64_t seed = 0;
  int64_t step = 0;
  int64_t first_row = 0, rows = 0;  // Of the batch, those that are written; 0 rows: all
};

// The batch's prompts, continued by `writer`: rows are one document from position 0, targets are
// the written tokens alone. prompts: tokens of each row of the batch that are kept, 1 to T; 0: the
// row has no target. The rows are written at once, a token a pass, with keys and values kept: about
// T passes of them over the writer's weights, from the shortest prompt of the batch on, whichever
// rows these are. Their tokens are those of a call for all rows (the last bits of a product may
// differ with its number of rows, and with them a choice that they decide). Throws NumericError
// when its logits are not finite.
data::Batch Continue(const model::Decoder& writer, const data::Batch& batch,
                     const std::vector<int64_t>& prompts, const WriteOptions& options);

}  // namespace tern::distill
