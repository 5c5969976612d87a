// The keys of a train stage's losses (schema.h).
#include <algorithm>

#include "recipe/schema_parts.h"

namespace tern::recipe {
namespace {

constexpr const char* kRows[] = {"labels", "all"};
constexpr const char* kDistances[] = {"mse", "cosine"};
constexpr const char* kLayers[] = {"last", "all"};
constexpr const char* kReductions[] = {"mean", "batch"};
constexpr const char* kWriters[] = {"none", "student", "teacher"};
constexpr const char* kBalances[] = {"none", "gradient_norm"};

void DescribeWeight(FieldVisitor& v, LossWeight& w) {
  v.Real("weight", w.first,
         {"Factor at the first step; 0 and no final_weight: not used", "", 0, 1e9});
  v.Real("final_weight", w.last,
         {"Factor at the last step, linear in between; -1: as weight", "", -1, 1e9});
}

void DescribeDivergence(FieldVisitor& v, DivergenceConfig& d) {
  DescribeWeight(v, d.weight);
  v.Real("temperature", d.temperature,
         {"tau: both sides' logits are divided by it", "", 0.01, 1000});
  v.Flag("tau_squared", d.tau_squared,
         {"Multiply by tau^2, so that gradients keep their size over tau"});
}

void DescribeJsd(FieldVisitor& v, LossesConfig& l) {
  DescribeDivergence(v, l.jsd);
  v.Real("beta", l.jsd_beta,
         {"beta KL(teacher, mix) + (1 - beta) KL(student, mix), mix = beta teacher + (1 - beta) "
          "student",
          "", 0.001, 0.999});
}

void DescribeTopK(FieldVisitor& v, LossesConfig& l) {
  DescribeDivergence(v, l.topk_kl);
  v.Int("k", l.topk_k, {"The teacher's most probable tokens", "tokens", 1, 1 << 20});
}

void DescribeHidden(FieldVisitor& v, HiddenLossConfig& h) {
  DescribeWeight(v, h.weight);
  Choice(v, "distance", h.distance, kDistances, {"Mean squared difference, or 1 - cosine"});
  Choice(v, "layers", h.layers, kLayers,
         {"The last blocks' outputs, or every block of the student with the teacher's at the same "
          "share of its depth; other widths go through learned projections"});
}

void DescribeRelations(FieldVisitor& v, RelationLossConfig& r) {
  DescribeWeight(v, r.weight);
  v.Int("student_layer", r.student_layer,
        {"Block whose queries, keys and values are compared; from the end when negative", "",
         -10000, 10000});
  v.Int("teacher_layer", r.teacher_layer, {"The teacher's block", "", -10000, 10000});
  v.Int("heads", r.heads,
        {"The vectors of all heads are cut anew into so many; 0: the student's num_kv_heads", "", 0,
         10000});
  v.Real("temperature", r.temperature,
         {"0: the square root of such a head's width, as published; BitDistill's code has 1", "", 0,
          1e6});
  v.Flag("normalize", r.normalize, {"Vectors of length 1, as in BitDistill's code"});
  Choice(v, "reduction", r.reduction, kReductions,
         {"mean: over heads, rows and documents, as published; batch: rows are summed, as in "
          "BitDistill's code"});
}

void DescribeGenerated(FieldVisitor& v, GeneratedConfig& g) {
  Choice(v, "by", g.by, kWriters,
         {"Who writes: student (on-policy, GKD; scored by the teacher, without cross-entropy) or "
          "teacher (sequence-level, Kim and Rush)"});
  v.Real("share", g.share,
         {"Of the steps, drawn by the seed (GKD's lambda)", "share of steps", 0, 1});
  v.Int("prompt_tokens", g.prompt_tokens,
        {"Of each sequence's first document, kept as the prompt; 0: up to its first label (the "
         "answer of instruction data)",
         "tokens", 0, 1 << 24});
  v.Int("tokens", g.tokens,
        {"Written at most; 0: to the end of the sequence", "tokens", 0, 1 << 24});
  v.Real("temperature", g.temperature, {"Of sampling; 0: the most probable token", "", 0, 100});
}

void DescribeBalance(FieldVisitor& v, BalanceConfig& b) {
  Choice(v, "by", b.by, kBalances,
         {"gradient_norm: weights are sizes of gradients in units of cross-entropy's (or the first "
          "loss's), whatever the losses' own scales"});
  v.Int("every", b.every, {"Between two measurements of the gradients", "steps", 1, 1e9});
  v.Real(
      "smoothing", b.smoothing,
      {"Share that the running mean of a gradient's norm keeps at a measurement", "", 0, 0.9999});
  v.Real("limit", b.limit,
         {"Weights are multiplied with 1 / limit at least, limit at most", "", 1, 1e12});
}

}  // namespace

std::vector<NamedWeight> UsedLosses(const LossesConfig& l) {
  std::vector<NamedWeight> used;
  for (NamedWeight& loss : std::vector<NamedWeight>{{"forward_kl", l.forward_kl.weight},
                                                    {"reverse_kl", l.reverse_kl.weight},
                                                    {"jsd", l.jsd.weight},
                                                    {"topk_kl", l.topk_kl.weight},
                                                    {kCrossEntropy, l.cross_entropy},
                                                    {"hidden", l.hidden.weight},
                                                    {"relations", l.relations.weight}}) {
    if (loss.weight.IsUsed()) used.push_back(std::move(loss));
  }
  return used;
}

bool ComparesWithTeacher(const LossesConfig& losses) {
  const std::vector<NamedWeight> used = UsedLosses(losses);
  return std::any_of(used.begin(), used.end(),
                     [](const NamedWeight& loss) { return loss.name != kCrossEntropy; });
}

bool IsPlain(const LossesConfig& losses) {
  return !UsesTeacher(losses) && losses.cross_entropy.first == 1 && losses.cross_entropy.last < 0;
}

bool UsesTeacher(const LossesConfig& losses) {
  return ComparesWithTeacher(losses) || losses.generated.by == GeneratedBy::kTeacher;
}

void DescribeLosses(FieldVisitor& v, LossesConfig& l) {
  Choice(v, "rows", l.rows, kRows,
         {"Where losses against the teacher count: tokens with a label, or all, prompts too"});
  Section(v, "cross_entropy", l.cross_entropy, "-log p of the next token", DescribeWeight);
  Section(v, "forward_kl", l.forward_kl, "KL(teacher, student)", DescribeDivergence);
  Section(v, "reverse_kl", l.reverse_kl, "KL(student, teacher)", DescribeDivergence);
  Section(v, "jsd", l, "Generalised Jensen-Shannon divergence (GKD)", DescribeJsd);
  Section(v, "topk_kl", l,
          "KL(teacher, student) over the teacher's top k and the rest as one event", DescribeTopK);
  Section(v, "hidden", l.hidden, "Distance of hidden states", DescribeHidden);
  Section(v, "relations", l.relations, "Relations of queries, keys and values (MiniLMv2)",
          DescribeRelations);
  v.Int(
      "log_gradients_every", l.log_gradients_every,
      {"Between two records of each loss's gradient norm and share; 0: none. A record costs up to "
       "a backward pass a loss",
       "steps", 0, 1e9, true});
  Section(v, "balance", l.balance, "Weights that follow the losses' gradients", DescribeBalance);
  Section(v, "generated", l.generated,
          "Steps that train on continuations of their prompts, written by a model",
          DescribeGenerated);
}

}  // namespace tern::recipe
