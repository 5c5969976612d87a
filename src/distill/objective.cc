// See objective.h.
#include "distill/objective.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "distill/feature_losses.h"
#include "model/batch_input.h"

namespace tern::distill {
namespace {

constexpr double kUnbalanced = 1000;  // Weighted losses further apart than this get a warning

bool IsUsed(const recipe::LossWeight& weight) { return weight.first > 0 || weight.last > 0; }

// Index of a block, counted from the end when negative. Throws RecipeError outside of the model.
int64_t LayerIndex(int64_t layer, int64_t layers, const std::string& key) {
  const int64_t index = layer < 0 ? layers + layer : layer;
  if (index < 0 || index >= layers) {
    throw RecipeError(StrCat(key, " = ", layer, ": the model has ", layers, " blocks; want ",
                             -layers, " to ", layers - 1));
  }
  return index;
}

at::Tensor RowsThatCount(const at::Tensor& targets_M, bool all) {
  return all ? at::ones({targets_M.size(0)}, at::kFloat) : (targets_M >= 0).to(at::kFloat);
}

}  // namespace

struct Objective::StepPlan {
  int64_t step = 0;
  std::vector<LogitTerm> terms;
  std::vector<LossValue> values;  // Those of the terms first, then hidden and relations
  LogitLossOptions logits;
  model::Capture ours, theirs;
};

double WeightAt(const recipe::LossWeight& weight, int64_t step, int64_t steps) {
  if (weight.last < 0 || steps <= 1) return weight.first;
  const double progress = static_cast<double>(step) / static_cast<double>(steps - 1);
  return weight.first + (weight.last - weight.first) * std::clamp(progress, 0.0, 1.0);
}

Objective::Objective(const recipe::TrainStage& stage, const ModelConfig& student,
                     const model::Decoder* teacher, const TeacherStore* store, uint64_t seed)
    : stage_(stage), student_(student), teacher_(teacher), store_(store) {
  if (!recipe::UsesTeacher(stage.losses) || store != nullptr) return;
  TERN_CHECK(teacher_ != nullptr, "CheckLosses lets no such loss through without a teacher");
  CheckFits(student);
  AddProjections(student, seed);
}

void Objective::CheckFits(const ModelConfig& student) const {
  const ModelConfig& teacher = teacher_->config();
  if (teacher.vocab_size != student.vocab_size) {
    throw RecipeError(StrCat("teacher.from: its vocabulary has ", teacher.vocab_size,
                             " entries, the student's ", student.vocab_size,
                             "; distributions over them cannot be compared"));
  }
  if (teacher.context_length < stage_.sequence_length) {
    throw RecipeError(StrCat(stage_.id, ".sequence_length = ", stage_.sequence_length,
                             " is longer than the teacher's context of ", teacher.context_length));
  }
  const recipe::RelationLossConfig& r = stage_.losses.relations;
  if (!IsUsed(r.weight)) return;
  const std::string at = stage_.id + ".losses.relations.";
  LayerIndex(r.student_layer, student.num_layers, at + "student_layer");
  LayerIndex(r.teacher_layer, teacher.num_layers, at + "teacher_layer");
  for (const ModelConfig* c : {&student, &teacher}) {
    for (const int64_t width : {c->num_heads * c->HeadDim(), c->num_kv_heads * c->HeadDim()}) {
      if (width % RelationHeads() == 0) continue;
      throw RecipeError(StrCat(at, "heads = ", RelationHeads(), " does not divide a width of ",
                               width, " (queries ", c->num_heads * c->HeadDim(), ", keys ",
                               c->num_kv_heads * c->HeadDim(), ")"));
    }
  }
}

int64_t Objective::RelationHeads() const {
  const int64_t heads = stage_.losses.relations.heads;
  return heads > 0 ? heads : student_.num_kv_heads;
}

std::vector<std::pair<int64_t, int64_t>> Objective::HiddenPairs() const {
  const int64_t ours = student_.num_layers, theirs = teacher_->config().num_layers;
  if (stage_.losses.hidden.layers == recipe::HiddenLayers::kLast) return {{ours - 1, theirs - 1}};
  std::vector<std::pair<int64_t, int64_t>> pairs;
  for (int64_t l = 0; l < ours; ++l) {
    const int64_t depth = ((l + 1) * theirs + ours / 2) / ours;  // Rounded
    pairs.emplace_back(l, std::max<int64_t>(depth, 1) - 1);
  }
  return pairs;
}

void Objective::AddProjections(const ModelConfig& student, uint64_t seed) {
  const int64_t d = student.hidden_size, teacher_d = teacher_->config().hidden_size;
  if (!IsUsed(stage_.losses.hidden.weight) || d == teacher_d) return;
  const float std = 1.0f / std::sqrt(static_cast<float>(d));
  for (const auto& [ours, theirs] : HiddenPairs()) {
    const std::string name = StrCat("distill.hidden.", ours, ".weight");
    at::Tensor value = at::empty({teacher_d, d}, at::kFloat);
    RandomStream stream(seed, "init/" + name);
    float* data = value.mutable_data_ptr<float>();
    for (int64_t i = 0; i < value.numel(); ++i) data[i] = std * stream.NextNormal();
    projections_.push_back(
        {{name, {teacher_d, d}, ParameterRole::kLinear}, value.set_requires_grad(true)});
  }
}

std::vector<LogitTerm> Objective::TermsAt(int64_t step, std::vector<LossValue>* values) const {
  const recipe::LossesConfig& l = stage_.losses;
  std::vector<LogitTerm> terms;
  const auto add = [&](const char* name, LogitLoss kind, const recipe::DivergenceConfig& d) {
    if (!IsUsed(d.weight)) return;
    const double weight = WeightAt(d.weight, step, stage_.steps);
    terms.push_back({kind, weight, d.temperature, d.tau_squared, l.jsd_beta, l.topk_k});
    values->push_back({name, 0, weight});
  };
  // Cross-entropy is measured even when its weight is 0: it is what the validation loss is.
  add("forward_kl", LogitLoss::kForwardKl, l.forward_kl);
  add("reverse_kl", LogitLoss::kReverseKl, l.reverse_kl);
  add("jsd", LogitLoss::kJsd, l.jsd);
  add("topk_kl", LogitLoss::kTopKKl, l.topk_kl);
  const double weight = WeightAt(l.cross_entropy, step, stage_.steps);
  terms.push_back({LogitLoss::kCrossEntropy, weight, 1, false, l.jsd_beta, l.topk_k});
  values->push_back({"cross_entropy", 0, weight});
  return terms;
}

at::Tensor Objective::FeatureLosses(const at::Tensor& rows_M, int64_t batch, int64_t tokens,
                                    double share, StepPlan* plan) const {
  const recipe::LossesConfig& l = stage_.losses;
  at::Tensor total;
  const auto add = [&](const char* name, const at::Tensor& loss) {
    LossValue& value = *std::find_if(plan->values.begin(), plan->values.end(),
                                     [&](const LossValue& v) { return v.name == name; });
    value.value += loss.item<double>();
    total = total.defined() ? total + value.weight * loss : value.weight * loss;
  };
  if (IsUsed(l.hidden.weight)) {
    const auto pairs = HiddenPairs();
    const auto distance = l.hidden.distance == recipe::HiddenDistance::kMse
                              ? HiddenDistance::kMse
                              : HiddenDistance::kCosine;
    const double count = plan->logits.teacher_count * static_cast<double>(pairs.size());
    for (size_t i = 0; i < pairs.size(); ++i) {
      add("hidden", HiddenLoss(plan->ours.features.at(pairs[i].first).hidden_MD,
                               plan->theirs.features.at(pairs[i].second).hidden_MD,
                               projections_.empty() ? at::Tensor() : projections_[i].value, rows_M,
                               count, distance));
    }
  }
  if (IsUsed(l.relations.weight)) {
    const recipe::RelationLossConfig& r = l.relations;
    const RelationOptions options{RelationHeads(), r.temperature, r.normalize,
                                  r.reduction == recipe::RelationReduction::kMean
                                      ? RelationReduction::kMean
                                      : RelationReduction::kBatch};
    const int64_t ours = LayerIndex(r.student_layer, student_.num_layers, ""),
                  theirs = LayerIndex(r.teacher_layer, teacher_->config().num_layers, "");
    add("relations",
        share * RelationLoss(plan->ours.features.at(ours), plan->theirs.features.at(theirs), batch,
                             tokens, options));
  }
  return total;
}

Objective::StepPlan Objective::MakePlan(const data::Batch& batch, int64_t step,
                                        const PassOptions& options) const {
  const recipe::LossesConfig& l = stage_.losses;
  StepPlan plan;
  plan.step = step;
  plan.terms = TermsAt(step, &plan.values);
  if (IsUsed(l.hidden.weight)) {
    plan.values.push_back({"hidden", 0, WeightAt(l.hidden.weight, step, stage_.steps)});
    for (const auto& [ours, theirs] : HiddenPairs()) {
      plan.ours.layers.insert(ours);
      plan.theirs.layers.insert(theirs);
    }
  }
  if (IsUsed(l.relations.weight)) {
    plan.values.push_back({"relations", 0, WeightAt(l.relations.weight, step, stage_.steps)});
    plan.ours.layers.insert(LayerIndex(l.relations.student_layer, student_.num_layers, ""));
    plan.theirs.layers.insert(
        LayerIndex(l.relations.teacher_layer, teacher_->config().num_layers, ""));
  }
  plan.logits.compute = options.compute;
  plan.logits.chunk_rows = options.chunk_rows;
  plan.logits.grad_scale = options.loss_scale;
  plan.logits.all_rows = l.rows == recipe::LossRows::kAll;
  plan.logits.target_count = static_cast<double>(std::count_if(
      batch.targets.begin(), batch.targets.end(), [](int32_t target) { return target >= 0; }));
  if (plan.logits.target_count == 0) {
    throw InputError(StrCat(stage_.id, ": no token of step ", step + 1,
                            " has a label; the masks of the data hide everything"));
  }
  plan.logits.teacher_count = plan.logits.all_rows ? static_cast<double>(batch.batch * batch.tokens)
                                                   : plan.logits.target_count;
  return plan;
}

TeacherRows Objective::Ask(const data::Batch& batch, int64_t begin,
                           const model::DecoderInput& input, const PassOptions& options,
                           StepPlan* plan) const {
  const at::NoGradGuard no_grad;
  if (!recipe::UsesTeacher(stage_.losses)) return nullptr;
  if (store_ != nullptr) {
    const TeacherChunk all = store_->Rows(batch, begin, options.micro_batch, options.first_sample);
    return [all](int64_t first, int64_t count) {
      return TeacherChunk{{},
                          all.top_indices_CK.narrow(0, first, count),
                          all.top_log_probs_CK.narrow(0, first, count)};
    };
  }
  const bool features = !plan->theirs.layers.empty();
  const at::Tensor h_MD = teacher_->Hidden(
      input, {options.compute, false, nullptr, features ? &plan->theirs : nullptr});
  const at::Tensor head_VD = teacher_->HeadWeight().detach();
  return [h_MD, head_VD, compute = options.compute](int64_t first, int64_t count) {
    return TeacherChunk{nn::MatMul(h_MD.narrow(0, first, count), head_VD.t(), compute), {}, {}};
  };
}

void Objective::RunMicroBatch(const model::Decoder& student, const data::Batch& batch,
                              int64_t begin, const PassOptions& options, StepPlan* plan) const {
  const bool features = !plan->ours.layers.empty();
  const model::DecoderInput input = model::InputOf(batch, begin, options.micro_batch);
  const at::Tensor targets_M = model::TargetsOf(batch, begin, options.micro_batch);
  const TeacherRows teacher = Ask(batch, begin, input, options, plan);
  const at::Tensor h_MD =
      student.Hidden(input, {options.compute, options.checkpoint_blocks, options.observer,
                             features ? &plan->ours : nullptr, options.quantized_share});
  std::vector<double> sums(plan->terms.size(), 0.0);
  const at::Tensor loss = ChunkedLogitLosses(h_MD, student.HeadWeight(), targets_M, plan->terms,
                                             teacher, plan->logits, &sums);
  for (size_t i = 0; i < sums.size(); ++i) plan->values[i].value += sums[i];
  if (!features) return torch::autograd::backward({loss}, {});
  const double share = static_cast<double>(options.micro_batch) / static_cast<double>(batch.batch);
  const at::Tensor of_features = FeatureLosses(RowsThatCount(targets_M, plan->logits.all_rows),
                                               options.micro_batch, batch.tokens, share, plan);
  torch::autograd::backward({loss, of_features * options.loss_scale}, {});
}

std::vector<LossValue> Objective::ForwardBackward(const model::Decoder& student,
                                                  const data::Batch& batch, int64_t step,
                                                  const PassOptions& options) const {
  TERN_CHECK(batch.batch % options.micro_batch == 0, batch.batch, " sequences in micro-batches of ",
             options.micro_batch);
  StepPlan plan = MakePlan(batch, step, options);
  for (int64_t begin = 0; begin < batch.batch; begin += options.micro_batch)
    RunMicroBatch(student, batch, begin, options, &plan);
  return plan.values;
}

std::string WhyUnbalanced(const std::vector<LossValue>& values) {
  const LossValue *most = nullptr, *least = nullptr;
  const auto weighted = [](const LossValue& v) { return v.weight * std::fabs(v.value); };
  for (const LossValue& value : values) {
    if (weighted(value) <= 0) continue;
    if (most == nullptr || weighted(value) > weighted(*most)) most = &value;
    if (least == nullptr || weighted(value) < weighted(*least)) least = &value;
  }
  if (most == nullptr || weighted(*most) < kUnbalanced * weighted(*least)) return "";
  return StrCat("losses.", most->name, " (", most->weight, " x ", most->value, ") is ",
                weighted(*most) / weighted(*least), " times losses.", least->name, " (",
                least->weight, " x ", least->value, "), which hardly counts");
}

}  // namespace tern::distill
