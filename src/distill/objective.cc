// See objective.h.
#include "distill/objective.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>

#include "base/error.h"
#include "base/random.h"
#include "distill/feature_losses.h"
#include "distill/generate.h"
#include "model/batch_input.h"

namespace tern::distill {
namespace {

constexpr double kUnbalanced = 1000;  // Weighted losses further apart than this get a warning

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
  return all ? at::ones_like(targets_M, at::kFloat) : (targets_M >= 0).to(at::kFloat);
}

// Documents of `sequences` sequences from `begin` on, whose rows are rows_M; undefined: as wholes.
at::Tensor IdsOf(const RelationDocuments& documents, int64_t begin, int64_t sequences,
                 const at::Tensor& rows_M) {
  if (documents.ids.empty()) return {};
  const int64_t tokens = rows_M.size(0) / sequences;
  const at::Tensor ids_BT = at::empty({sequences, tokens}, at::kInt);
  std::copy_n(documents.ids.begin() + begin * tokens, sequences * tokens,
              ids_BT.mutable_data_ptr<int32_t>());
  return ids_BT.to(rows_M.device());
}

// The rows of all ranks, in their order.
data::Batch OfAllRanks(data::Batch mine, const PassOptions& options) {
  if (options.ranks == 1) return mine;
  std::vector<double> ids(mine.inputs.begin(), mine.inputs.end());  // Exact
  ids.insert(ids.end(), mine.targets.begin(), mine.targets.end());
  data::Batch all;
  all.batch = mine.batch * options.ranks;
  all.tokens = mine.tokens;
  for (const std::vector<double>& of_rank : options.gather_over_ranks(ids)) {
    const auto targets = of_rank.begin() + static_cast<int64_t>(mine.inputs.size());
    for (auto id = of_rank.begin(); id != targets; ++id)
      all.inputs.push_back(static_cast<int32_t>(*id));
    for (auto id = targets; id != of_rank.end(); ++id)
      all.targets.push_back(static_cast<int32_t>(*id));
  }
  return all;
}

}  // namespace

struct Objective::StepPlan {
  int64_t step = 0;
  std::vector<LogitTerm> terms;
  std::vector<LossValue> values;  // Those of the terms first, then hidden and relations
  LogitLossOptions logits;
  model::Capture ours, theirs;
  bool measures = false, trains = true;
  std::vector<at::Tensor> term_gradients;  // Of a micro-batch, by h
  std::vector<double> squares;             // Of the values' gradients, at weight 1
  double loss = 0;                         // Of this process's sequences, weighted
  RelationDocuments documents;             // Of the step, where relations are used
};

double WeightAt(const recipe::LossWeight& weight, int64_t step, int64_t steps) {
  if (weight.last < 0 || steps <= 1) return weight.first;
  const double progress = static_cast<double>(step) / static_cast<double>(steps - 1);
  return weight.first + (weight.last - weight.first) * std::clamp(progress, 0.0, 1.0);
}

Objective::Objective(const recipe::TrainStage& stage, const ModelConfig& student, Teacher* teacher,
                     const TeacherStore* store, uint64_t seed)
    : stage_(stage), student_(student), teacher_(teacher), store_(store), seed_(seed) {
  if (!recipe::UsesTeacher(stage.losses) || store != nullptr) return;
  TERN_CHECK(teacher_ != nullptr, "CheckLosses lets no such loss through without a teacher");
  const recipe::LossesConfig& l = stage.losses;
  const bool logits_only = !l.hidden.weight.IsUsed() && !l.relations.weight.IsUsed() &&
                           l.generated.by != recipe::GeneratedBy::kTeacher;
  TERN_CHECK(logits_only || teacher_->decoder() != nullptr, "CheckLosses lets none of it through");
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
  if (!r.weight.IsUsed()) return;
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
  if (!stage_.losses.hidden.weight.IsUsed() || d == teacher_d) return;
  const float std = 1.0f / std::sqrt(static_cast<float>(d));
  for (const auto& [ours, theirs] : HiddenPairs()) {
    const std::string name = StrCat("distill.hidden.", ours, ".weight");
    at::Tensor value = at::empty({teacher_d, d}, at::kFloat);
    RandomStream stream(seed, "init/" + name);
    float* data = value.mutable_data_ptr<float>();
    for (int64_t i = 0; i < value.numel(); ++i) data[i] = std * stream.NextNormal();
    projections_.push_back({{name, {teacher_d, d}, ParameterRole::kLinear},
                            value.to(teacher_->decoder()->device()).set_requires_grad(true)});
  }
}

std::vector<LogitTerm> Objective::TermsAt(int64_t step, const LossBalance* balance,
                                          std::vector<LossValue>* values) const {
  const recipe::LossesConfig& l = stage_.losses;
  std::vector<LogitTerm> terms;
  const auto weight_of = [&](const char* name, const recipe::LossWeight& weight) {
    return WeightAt(weight, step, stage_.steps) * (balance != nullptr ? balance->Factor(name) : 1);
  };
  const auto add = [&](const char* name, LogitLoss kind, const recipe::DivergenceConfig& d) {
    if (!d.weight.IsUsed()) return;
    const double weight = weight_of(name, d.weight);
    terms.push_back({kind, weight, d.temperature, d.tau_squared, l.jsd_beta, l.topk_k});
    values->push_back({name, 0, weight});
  };
  // Cross-entropy is measured even when its weight is 0: it is what the validation loss is.
  add("forward_kl", LogitLoss::kForwardKl, l.forward_kl);
  add("reverse_kl", LogitLoss::kReverseKl, l.reverse_kl);
  add("jsd", LogitLoss::kJsd, l.jsd);
  add("topk_kl", LogitLoss::kTopKKl, l.topk_kl);
  const double weight = weight_of(recipe::kCrossEntropy, l.cross_entropy);
  terms.push_back({LogitLoss::kCrossEntropy, weight, 1, false, l.jsd_beta, l.topk_k});
  values->push_back({recipe::kCrossEntropy, 0, weight});
  return terms;
}

Objective::IndexedLosses Objective::FeatureLosses(const at::Tensor& rows_M, int64_t begin,
                                                  int64_t sequences, StepPlan* plan) const {
  const recipe::LossesConfig& l = stage_.losses;
  IndexedLosses losses;
  const auto add = [&](const char* name, const at::Tensor& loss) {
    const auto value = std::find_if(plan->values.begin(), plan->values.end(),
                                    [&](const LossValue& v) { return v.name == name; });
    const auto index = static_cast<size_t>(value - plan->values.begin());
    value->value += loss.item<double>();
    if (losses.empty() || losses.back().first != index) {
      losses.emplace_back(index, loss);
    } else {
      losses.back().second = losses.back().second + loss;
    }
  };
  if (l.hidden.weight.IsUsed()) {
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
  if (l.relations.weight.IsUsed()) {
    const recipe::RelationLossConfig& r = l.relations;
    const bool mean = r.reduction == recipe::RelationReduction::kMean;
    const RelationOptions options{RelationHeads(), r.temperature, r.normalize,
                                  mean ? RelationReduction::kMean : RelationReduction::kBatch};
    const RelationDocuments& documents = plan->documents;
    const int64_t ours = LayerIndex(r.student_layer, student_.num_layers, ""),
                  theirs = LayerIndex(r.teacher_layer, teacher_->config().num_layers, "");
    add("relations", RelationLoss(plan->ours.features.at(ours), plan->theirs.features.at(theirs),
                                  IdsOf(documents, begin, sequences, rows_M), sequences,
                                  mean ? documents.rows : documents.documents, options));
  }
  return losses;
}

Objective::StepPlan Objective::MakePlan(const data::Batch& batch, int64_t step,
                                        const PassOptions& options, bool is_generated) const {
  const recipe::LossesConfig& l = stage_.losses;
  StepPlan plan;
  plan.step = step;
  plan.terms = TermsAt(step, options.balance, &plan.values);
  // What the student wrote is no example to learn from.
  if (is_generated && l.generated.by == recipe::GeneratedBy::kStudent)
    plan.terms.back().weight = plan.values.back().weight = 0;
  const auto add = [&](const char* name, const recipe::LossWeight& weight) {
    const double factor = options.balance != nullptr ? options.balance->Factor(name) : 1;
    plan.values.push_back({name, 0, WeightAt(weight, step, stage_.steps) * factor});
  };
  if (l.hidden.weight.IsUsed()) {
    add("hidden", l.hidden.weight);
    for (const auto& [ours, theirs] : HiddenPairs()) {
      plan.ours.layers.insert(ours);
      plan.theirs.layers.insert(theirs);
    }
  }
  if (l.relations.weight.IsUsed()) {
    add("relations", l.relations.weight);
    plan.documents = DocumentsOf(batch, is_generated);
    plan.ours.layers.insert(LayerIndex(l.relations.student_layer, student_.num_layers, ""));
    plan.theirs.layers.insert(
        LayerIndex(l.relations.teacher_layer, teacher_->config().num_layers, ""));
  }
  plan.logits.compute = options.compute;
  plan.logits.chunk_rows = options.chunk_rows;
  plan.logits.grad_scale = options.loss_scale;
  plan.logits.all_rows = l.rows == recipe::LossRows::kAll && !is_generated;
  plan.logits.target_count = static_cast<double>(std::count_if(
      batch.targets.begin(), batch.targets.end(), [](int32_t target) { return target >= 0; }));
  if (plan.logits.target_count == 0) {
    throw InputError(
        StrCat(stage_.id, ": no token of step ", step + 1,
               " has a label: the masks of the data hide all of it; want longer samples "
               "(sequence_length), more a step (tokens_per_step), or prompts_count: "
               "true"));
  }
  plan.logits.teacher_count = plan.logits.all_rows ? static_cast<double>(batch.batch * batch.tokens)
                                                   : plan.logits.target_count;
  return plan;
}

TeacherRows Objective::Ask(const data::Batch& batch, int64_t begin, const at::Device& device,
                           const PassOptions& options, StepPlan* plan) const {
  const at::NoGradGuard no_grad;
  if (!recipe::ComparesWithTeacher(stage_.losses)) return nullptr;
  if (store_ != nullptr) {
    TeacherChunk all = store_->Rows(batch, begin, options.micro_batch, options.first_sample);
    all.top_indices_CK = all.top_indices_CK.to(device);
    all.top_log_probs_CK = all.top_log_probs_CK.to(device);
    return [all](int64_t first, int64_t count) {
      return TeacherChunk{{},
                          all.top_indices_CK.narrow(0, first, count),
                          all.top_log_probs_CK.narrow(0, first, count)};
    };
  }
  const bool features = !plan->theirs.layers.empty();
  const at::Tensor h_MD = teacher_->Hidden(batch, begin, options.micro_batch, options.compute,
                                           features ? &plan->theirs : nullptr);
  if (!std::isfinite(h_MD.sum().item<double>())) {
    throw NumericError(StrCat("the teacher's hidden states of step ", plan->step + 1,
                              " hold NaN or Inf; check the teacher (teacher.from) with tern eval"));
  }
  return [h_MD, teacher = teacher_, compute = options.compute](int64_t first, int64_t count) {
    return TeacherChunk{teacher->Logits(h_MD.narrow(0, first, count), compute), {}, {}};
  };
}

void Objective::RunMicroBatch(const model::Decoder& student, const data::Batch& batch,
                              int64_t begin, const PassOptions& options, StepPlan* plan) const {
  const bool features = !plan->ours.layers.empty();
  const model::DecoderInput input =
      model::InputOf(batch, begin, options.micro_batch, student.device());
  const at::Tensor targets_M =
      model::TargetsOf(batch, begin, options.micro_batch, student.device());
  const TeacherRows teacher = Ask(batch, begin, student.device(), options, plan);
  const at::Tensor h_MD =
      student.Hidden(input, {options.compute, options.checkpoint_blocks, options.observer,
                             features ? &plan->ours : nullptr, options.quantized_share});
  std::vector<double> sums(plan->terms.size(), 0.0);
  const at::Tensor loss = ChunkedLogitLosses(h_MD, student.HeadWeight(), targets_M, plan->terms,
                                             teacher, plan->logits, &sums);
  for (size_t i = 0; i < sums.size(); ++i) plan->values[i].value += sums[i];
  IndexedLosses of_features;
  if (features) {
    of_features = FeatureLosses(RowsThatCount(targets_M, plan->logits.all_rows), begin,
                                options.micro_batch, plan);
  }
  if (plan->measures) Measure(h_MD, of_features, plan);
  if (!plan->trains) return;
  std::vector<at::Tensor> losses = {loss};
  at::Tensor total;
  for (const auto& [index, feature] : of_features) {
    const at::Tensor weighted = plan->values[index].weight * feature;
    total = total.defined() ? total + weighted : weighted;
  }
  if (total.defined()) losses.push_back(total * options.loss_scale);
  const int64_t end = batch.batch / options.ranks * (options.rank + 1);
  if (options.before_backward) options.before_backward(begin + options.micro_batch == end);
  torch::autograd::backward(losses, {});
}

void Objective::Measure(const at::Tensor& h_MD, const IndexedLosses& features,
                        StepPlan* plan) const {
  const double scale = plan->logits.grad_scale;
  const at::Tensor shared =
      features.empty() ? h_MD : plan->ours.features.at(*plan->ours.layers.begin()).input_MD;
  const auto add = [&](size_t index, const at::Tensor& gradient, double times) {
    if (!gradient.defined()) return;  // The loss is far from what is shared
    plan->squares[index] += gradient.square().sum(at::kDouble).item<double>() / (times * times);
  };
  const auto back = [&](const at::Tensor& from, const at::Tensor& gradient) {
    return torch::autograd::grad({from}, {shared}, {gradient}, /*retain_graph=*/true,
                                 /*create_graph=*/false, /*allow_unused=*/true)[0];
  };
  for (size_t i = 0; i < plan->term_gradients.size(); ++i) {
    const at::Tensor& by_h_MD = plan->term_gradients[i];
    if (!by_h_MD.defined()) continue;
    add(i, features.empty() ? by_h_MD : back(h_MD, by_h_MD), plan->values[i].weight * scale);
  }
  for (const auto& [index, loss] : features)
    add(index, back(loss, at::full({}, scale, loss.options())), scale);
}

void Objective::RunMicroBatches(const model::Decoder& student, const data::Batch& batch,
                                const PassOptions& options, StepPlan* plan) const {
  plan->logits.term_gradients = plan->measures ? &plan->term_gradients : nullptr;
  plan->ours.differentiates_inputs = plan->measures;
  plan->squares.assign(plan->values.size(), 0.0);
  const int64_t share = batch.batch / options.ranks, first = options.rank * share;
  for (int64_t begin = first; begin < first + share; begin += options.micro_batch)
    RunMicroBatch(student, batch, begin, options, plan);
  for (const LossValue& value : plan->values) plan->loss += value.weight * value.value;
  if (options.ranks > 1) SumOverRanks(options, plan);
  if (!plan->measures) return;
  for (size_t i = 0; i < plan->values.size(); ++i) {
    LossValue& value = plan->values[i];
    if (value.weight > 0) value.grad_norm = std::sqrt(plan->squares[i]);
  }
}

void Objective::SumOverRanks(const PassOptions& options, StepPlan* plan) const {
  std::vector<double> mine = plan->squares;
  for (const LossValue& value : plan->values) mine.push_back(value.value);
  const auto all = options.gather_over_ranks(mine);
  const size_t count = plan->values.size();
  for (size_t i = 0; i < count; ++i) {
    plan->squares[i] = plan->values[i].value = 0;
    for (const std::vector<double>& of_rank : all) {
      plan->squares[i] += of_rank[i];
      plan->values[i].value += of_rank[count + i];
    }
  }
}

StepLosses Objective::ForwardBackward(const model::Decoder& student, const data::Batch& batch,
                                      int64_t step, const PassOptions& options) const {
  TERN_CHECK(batch.batch % (options.ranks * options.micro_batch) == 0, batch.batch,
             " sequences on ", options.ranks, " ranks in micro-batches of ", options.micro_batch);
  StepLosses out;
  if (IsGenerated(stage_.losses.generated, seed_, stage_.id, step)) {
    const data::Batch written = Generate(student, batch, step, options, &out);
    if (out.written_tokens > 0) {
      Minimise(student, written, step, options, true, &out);
      return out;
    }
    out = {};  // No row's first document has a label to write from: the text as it is
  }
  Minimise(student, batch, step, options, false, &out);
  return out;
}

data::Batch Objective::Generate(const model::Decoder& student, const data::Batch& batch,
                                int64_t step, const PassOptions& options, StepLosses* out) const {
  const recipe::GeneratedConfig& config = stage_.losses.generated;
  const bool by_student = config.by == recipe::GeneratedBy::kStudent;
  std::vector<int64_t> prompts;
  for (int64_t row = 0; row < batch.batch; ++row)
    prompts.push_back(PromptTokens(config, batch, row));
  const int64_t share = batch.batch / options.ranks;
  const data::Batch written =
      OfAllRanks(Continue(by_student ? student : *teacher_->decoder(), batch, prompts,
                          {options.compute, by_student ? options.quantized_share : 1,
                           config.temperature, config.tokens, options.stop_token,
                           "sampling/" + stage_.id, seed_, step, options.rank * share, share}),
                 options);
  out->written_by = by_student ? "student" : "teacher";
  out->written_tokens = std::count_if(written.targets.begin(), written.targets.end(),
                                      [](int32_t target) { return target >= 0; });
  out->written_hash = written.Hash();
  return written;
}

void Objective::Minimise(const model::Decoder& student, const data::Batch& batch, int64_t step,
                         const PassOptions& options, bool is_generated, StepLosses* out) const {
  StepPlan plan = MakePlan(batch, step, options, is_generated);
  LossBalance* balance = options.balance;
  bool observes = balance != nullptr && balance->IsDue(step);
  if (balance != nullptr && balance->Lacks(plan.values)) {  // Once: before a loss first counts
    plan.measures = true;
    plan.trains = false;
    PassOptions unseen = options;
    unseen.observer = nullptr;
    RunMicroBatches(student, batch, unseen, &plan);
    balance->Observe(plan.values);
    plan = MakePlan(batch, step, options, is_generated);
    observes = false;
  }
  plan.measures = options.measures_gradients || observes;
  RunMicroBatches(student, batch, options, &plan);
  if (observes) balance->Observe(plan.values);
  out->values = plan.values;
  out->loss = plan.loss;
}

namespace {

// The largest and the least above 0 of `size`, when they are kUnbalanced apart.
using Extremes = std::pair<const LossValue*, const LossValue*>;
std::optional<Extremes> FarApart(const std::vector<LossValue>& values,
                                 const std::function<double(const LossValue&)>& size) {
  const LossValue *most = nullptr, *least = nullptr;
  for (const LossValue& value : values) {
    if (!(size(value) > 0)) continue;
    if (most == nullptr || size(value) > size(*most)) most = &value;
    if (least == nullptr || size(value) < size(*least)) least = &value;
  }
  if (most == nullptr || size(*most) < kUnbalanced * size(*least)) return std::nullopt;
  return Extremes(most, least);
}

}  // namespace

std::string WhyUnbalanced(const std::vector<LossValue>& values, bool is_balanced) {
  const auto by_value = [](const LossValue& v) { return v.weight * std::fabs(v.value); };
  const auto by_gradient = [](const LossValue& v) { return v.weight * v.grad_norm; };
  if (const auto apart = FarApart(values, by_value); apart && !is_balanced) {
    const auto& [most, least] = *apart;
    return StrCat("losses.", most->name, " (", most->weight, " x ", most->value, ") is ",
                  by_value(*most) / by_value(*least), " times losses.", least->name, " (",
                  least->weight, " x ", least->value, "), which hardly counts");
  }
  const auto apart = FarApart(values, by_gradient);
  if (!apart) return "";
  const auto& [most, least] = *apart;
  return StrCat("the gradient of losses.", most->name, " (", most->weight, " x ", most->grad_norm,
                ") is ", by_gradient(*most) / by_gradient(*least), " times that of losses.",
                least->name, " (", least->weight, " x ", least->grad_norm,
                "), which hardly counts");
}

}  // namespace tern::distill
