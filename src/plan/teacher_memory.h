// What losses that compare with a teacher keep beside the student: the teacher, what it says of a
// micro-batch, and the matrices over the vocabulary while one chunk of rows is compared
// (distill/logit_losses.cc).
#pragma once

#include <vector>

#include "plan/plan.h"

namespace tern::plan {

// What is there for a whole step: the teacher unless a store speaks for it, its last hidden states
// and the features that losses look at. rows: tokens of one forward pass.
std::vector<MemoryLine> TeacherLines(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
                                     int64_t rows);

// The line of a teacher that libtorch runs.
inline constexpr const char* kTeacherLine = "the teacher (fp32)";

// How many fp32 matrices [chunk, vocabulary] are there at once, at most.
int64_t ChunkMatrices(const recipe::Recipe& recipe, const recipe::TrainStage& stage);

}  // namespace tern::plan
