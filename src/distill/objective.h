// What a train stage minimises when there is more than cross-entropy: the recipe's losses with
// their weights at a step, the frozen teacher they compare with, and the projections between
// widths, which are trained along.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "data/batch.h"
#include "distill/balance.h"
#include "distill/logit_losses.h"
#include "distill/teacher.h"
#include "distill/teacher_store.h"
#include "model/decoder.h"
#include "recipe/recipe.h"

namespace tern::distill {

// Weight of the update that makes step `step` into step + 1 of `steps`.
double WeightAt(const recipe::LossWeight& weight, int64_t step, int64_t steps);

struct PassOptions {
  nn::ComputeType compute = nn::ComputeType::kFp32;
  bool checkpoint_blocks = false;
  int64_t micro_batch = 1;  // Sequences a forward pass; divides the batch
  int64_t chunk_rows = 512;
  double loss_scale = 1.0;  // Gradients come out multiplied by it
  nn::BitLinearObserver* observer = nullptr;
  double quantized_share = 1;  // Of the student's BitLinear
  int64_t first_sample = 0;    // Number of the batch's first row in the sampler's order
  // Measure each loss's gradient: LossValue::grad_norm.
  bool measures_gradients = false;
  // Not null: multiplies the weights, and gets what is measured when it is due.
  LossBalance* balance = nullptr;
  int32_t stop_token = -1;  // That ends a generated text
  // This process is `rank` of `ranks` that share the step: it takes sequences [rank, rank + 1) * B
  // / ranks. REQUIRES: ranks * micro_batch divides B.
  int rank = 0, ranks = 1;
  // With several ranks: what each gives, in their order, the same on all; and what is called before
  // each backward pass that adds to .grad; last: of the step.
  std::function<std::vector<std::vector<double>>(const std::vector<double>&)> gather_over_ranks;
  std::function<void(bool last)> before_backward;
};

// What a step minimised, and on what.
struct StepLosses {
  std::vector<LossValue> values;  // The losses used, in a fixed order, of all ranks
  double loss = 0;                // Sum of weight * value of this process's sequences
  // Of a step on generated text, of all ranks: "student" or "teacher" wrote it; else empty.
  std::string written_by;
  int64_t written_tokens = 0;
  uint64_t written_hash = 0;  // data::Batch::Hash
};

class Objective {
 public:
  // `teacher` may be null when no loss compares with it, or when `store` says what it says (top k
  // losses only); both must live as long as this. Throws
  // RecipeError when teacher and student do not fit: vocabularies, layers, heads.
  Objective(const recipe::TrainStage& stage, const ModelConfig& student, Teacher* teacher,
            const TeacherStore* store, uint64_t seed);

  // Projections [Dt, Ds] of the hidden loss, normal(0, 1/sqrt(Ds)) by the seed; empty when widths
  // are equal or the loss is not used. To be trained and saved with the student.
  const std::vector<model::Parameter>& parameters() const { return projections_; }

  // One step's forward and backward passes at step `step`: gradients of loss_scale * sum of weight
  // * loss are added to .grad. Losses count rows of the whole step, so that micro-batches change
  // rounding only. On a step of generated text (generate.h)
  // the batch's prompts are continued first, and losses count where something was written.
  //
  // Gradients are measured with respect to what all losses share: the input of the lowest block
  // that a hidden or relations loss looks at, else the last norm's output. Rows of a step are
  // different elements of it, so the norm over the step is exact whatever the micro-batches. It
  // costs a product with the head for each loss over the vocabulary, and, with a hidden or
  // relations loss, a backward pass from the top down to that block for each loss.
  StepLosses ForwardBackward(const model::Decoder& student, const data::Batch& batch, int64_t step,
                             const PassOptions& options) const;

 private:
  struct StepPlan;
  void AddProjections(const ModelConfig& student, uint64_t seed);
  void CheckFits(const ModelConfig& student) const;
  StepPlan MakePlan(const data::Batch& batch, int64_t step, const PassOptions& options,
                    bool is_generated) const;
  // The batch's prompts continued by whom the recipe says, each rank its rows, all of them on all
  // ranks; fills what the step tells of it.
  data::Batch Generate(const model::Decoder& student, const data::Batch& batch, int64_t step,
                       const PassOptions& options, StepLosses* out) const;
  void Minimise(const model::Decoder& student, const data::Batch& batch, int64_t step,
                const PassOptions& options, bool is_generated, StepLosses* out) const;
  void RunMicroBatch(const model::Decoder& student, const data::Batch& batch, int64_t begin,
                     const PassOptions& options, StepPlan* plan) const;
  // What the teacher says of the rows of a micro-batch.
  TeacherRows Ask(const data::Batch& batch, int64_t begin, const at::Device& device,
                  const PassOptions& options, StepPlan* plan) const;
  // Adds the feature losses of a micro-batch, from sequence `begin` on, to the plan's values;
  // returns them, unweighted, with their indices there.
  using IndexedLosses = std::vector<std::pair<size_t, at::Tensor>>;
  IndexedLosses FeatureLosses(const at::Tensor& rows_M, int64_t begin, int64_t sequences,
                              StepPlan* plan) const;
  // What this process has measured becomes what all ranks have.
  void SumOverRanks(const PassOptions& options, StepPlan* plan) const;
  // Adds the squares of the losses' gradients in a micro-batch whose graph is whole.
  void Measure(const at::Tensor& h_MD, const IndexedLosses& features, StepPlan* plan) const;
  void RunMicroBatches(const model::Decoder& student, const data::Batch& batch,
                       const PassOptions& options, StepPlan* plan) const;
  // Student block -> teacher block of the hidden loss.
  std::vector<std::pair<int64_t, int64_t>> HiddenPairs() const;
  std::vector<LogitTerm> TermsAt(int64_t step, const LossBalance* balance,
                                 std::vector<LossValue>* values) const;
  int64_t RelationHeads() const;

  recipe::TrainStage stage_;
  ModelConfig student_;
  Teacher* teacher_;
  const TeacherStore* store_;
  uint64_t seed_;
  std::vector<model::Parameter> projections_;  // One a hidden pair, or none
};

// "forward_kl is 1000 times the rest" in words when a weighted loss, or its weighted gradient where
// that is measured, is 1,000 times another's or more; empty otherwise.
// is_balanced: weights follow gradients, so that values of other scales are no fault.
std::string WhyUnbalanced(const std::vector<LossValue>& values, bool is_balanced = false);

}  // namespace tern::distill
