// See teacher_memory.h.
#include "plan/teacher_memory.h"

#include <algorithm>

#include "arch/model_config.h"
#include "base/error.h"
#include "engine/text_pass.h"

namespace tern::plan {
namespace {

constexpr double kFloat = 4;  // Bytes

// Of one block, a token: queries, keys and values, what attention and the gate give, input and
// output (model/decoder.h, LayerFeatures).
double FeatureBytes(const ModelConfig& m) {
  const int64_t q = m.num_heads * m.HeadDim(), j = m.num_kv_heads * m.HeadDim();
  return kFloat * static_cast<double>(2 * q + 2 * j + m.intermediate_size + 2 * m.hidden_size);
}

// Of a teacher that the engine runs: what it keeps of the weights, which may be pages of the file
// that ranks share, and its buffers. Neither are tensors.
std::vector<MemoryLine> EngineLines(const recipe::Recipe& recipe, const recipe::TrainStage& stage) {
  const int64_t longest = stage.sequence_length,
                shortest = recipe.data.packing == recipe::Packing::kStream ? longest : 1;
  const int64_t buffers = engine::TextPass::BufferBytes(recipe.teacher.config, shortest, longest);
  return {{StrCat("the teacher (", recipe.teacher.weight_types, ", engine)"),
           static_cast<double>(recipe.teacher.weight_bytes), /*is_tensors=*/false},
          {"the teacher's cache and buffers", static_cast<double>(buffers), /*is_tensors=*/false}};
}

}  // namespace

std::vector<MemoryLine> TeacherLines(const recipe::Recipe& recipe, const recipe::TrainStage& stage,
                                     int64_t rows) {
  const recipe::LossesConfig& l = stage.losses;
  if (!recipe::UsesTeacher(l) || !recipe.teacher_store.empty()) return {};
  const ModelConfig& teacher = recipe.teacher.config;
  const auto m = static_cast<double>(rows);
  std::vector<MemoryLine> lines;
  if (recipe.teacher_runtime == recipe::Runtime::kEngine) {
    lines = EngineLines(recipe, stage);
  } else {
    lines = {{kTeacherLine, kFloat * static_cast<double>(CountParameters(teacher))}};
  }
  double kept = kFloat * static_cast<double>(teacher.hidden_size) * m;
  if (l.hidden.weight.IsUsed()) {
    const bool all = l.hidden.layers != recipe::HiddenLayers::kLast;
    kept += FeatureBytes(teacher) * m * (all ? static_cast<double>(recipe.model.num_layers) : 1);
  }
  if (l.relations.weight.IsUsed()) {
    // Log-probabilities of the student and probabilities of the teacher, for queries, keys and
    // values; those of one of them under way.
    const int64_t heads = l.relations.heads > 0 ? l.relations.heads : recipe.model.num_kv_heads;
    constexpr double kKept = 3 * 2, kUnderWay = 3;
    kept += FeatureBytes(teacher) * m +
            kFloat * (kKept + kUnderWay) * m * static_cast<double>(stage.sequence_length * heads);
  }
  lines.push_back({"what the teacher says", kept});
  return lines;
}

int64_t ChunkMatrices(const recipe::Recipe& recipe, const recipe::TrainStage& stage) {
  const recipe::LossesConfig& l = stage.losses;
  const int64_t teacher = recipe.teacher_store.empty() ? 1 : 0;
  const bool measures = l.log_gradients_every > 0 || l.balance.by != recipe::BalanceBy::kNone;
  int64_t most = 1, terms = 0;  // Cross-entropy comes last, in place
  const auto term = [&](const recipe::DivergenceConfig& d, int64_t work) {
    if (!d.weight.IsUsed()) return;
    // The gradient so far; where gradients are measured, beside its terms.
    const int64_t before = terms == 0 ? 0 : measures ? terms + 1 : 1;
    most = std::max(most, 1 + teacher + before + work);
    ++terms;
  };
  // In the order of Objective::TermsAt; what each has at once, from logit_losses.cc.
  term(l.forward_kl, 4);
  term(l.reverse_kl, 5);
  term(l.jsd, 11);
  term(l.topk_kl, 2);
  return most;
}

}  // namespace tern::plan
