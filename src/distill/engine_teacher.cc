// See engine_teacher.h.
#include "distill/engine_teacher.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "engine/weight_table.h"
#include "quant/torch_parallel.h"

namespace tern::distill {
namespace {

// The documents of sequences [begin, begin + count), in the order of their tokens.
std::vector<std::span<const int32_t>> Documents(const data::Batch& batch, int64_t begin,
                                                int64_t count) {
  std::vector<std::span<const int32_t>> documents;
  for (int64_t row = begin; row < begin + count; ++row) {
    const int64_t end = (row + 1) * batch.tokens;
    for (int64_t first = row * batch.tokens; first < end;) {
      int64_t next = end;
      if (!batch.document_ids.empty()) {
        const auto ids = batch.document_ids.begin();
        next = std::find_if(ids + first, ids + end, [&](int32_t id) { return id != ids[first]; }) -
               ids;
        // Documents begin at position 0, cut ones too (data/batch.h).
        TERN_CHECK(batch.positions[static_cast<size_t>(first)] == 0, "a document from position ",
                   batch.positions[static_cast<size_t>(first)], " on");
      }
      documents.emplace_back(batch.inputs.data() + first, static_cast<size_t>(next - first));
      first = next;
    }
  }
  return documents;
}

}  // namespace

EngineTeacher::EngineTeacher(engine::ModelWeights weights, int64_t longest)
    : weights_(std::move(weights)), pass_(weights_, longest, quant::TorchParallel()) {
  engine::CheckSizes(weights_);
}

at::Tensor EngineTeacher::Hidden(const data::Batch& batch, int64_t begin, int64_t count,
                                 nn::ComputeType /*compute*/, model::Capture* features) {
  TERN_CHECK(features == nullptr, "CheckLosses lets no loss on features through");
  at::Tensor h_MD = at::empty({count * batch.tokens, weights_.config.hidden_size}, at::kFloat);
  pass_.Run(Documents(batch, begin, count), h_MD.mutable_data_ptr<float>());
  return h_MD;
}

at::Tensor EngineTeacher::Logits(const at::Tensor& h_CD, nn::ComputeType /*compute*/) {
  TERN_CHECK(h_CD.is_contiguous(), "rows with gaps");
  at::Tensor logits_CV = at::empty({h_CD.size(0), weights_.config.vocab_size}, at::kFloat);
  pass_.Logits(h_CD.const_data_ptr<float>(), h_CD.size(0), logits_CV.mutable_data_ptr<float>());
  return logits_CV;
}

}  // namespace tern::distill
