// The keys of a train stage's losses (schema.h).
#include "recipe/schema_parts.h"

namespace tern::recipe {
namespace {

constexpr const char* kRows[] = {"labels", "all"};
constexpr const char* kDistances[] = {"mse", "cosine"};
constexpr const char* kLayers[] = {"last", "all"};
constexpr const char* kReductions[] = {"mean", "batch"};

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
         {"mean: over heads, rows and sequences, as published; batch: rows are summed, as in "
          "BitDistill's code"});
}

}  // namespace

bool UsesTeacher(const LossesConfig& l) {
  for (const LossWeight& w : {l.forward_kl.weight, l.reverse_kl.weight, l.jsd.weight,
                              l.topk_kl.weight, l.hidden.weight, l.relations.weight}) {
    if (w.first > 0 || w.last > 0) return true;
  }
  return false;
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
}

}  // namespace tern::recipe
