// Losses between features of student and teacher: hidden states, and MiniLMv2's relations of
// queries, keys and values (arXiv 2012.15828; BitDistill, arXiv 2510.13998). Gradients by autograd
// over the student's features; the teacher's are constants.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "data/batch.h"
#include "model/decoder.h"

namespace tern::distill {

enum class HiddenDistance { kMse, kCosine };

// Sum over rows of rows_M * distance(P s, t) / count; mse: mean over the teacher's channels of the
// squared difference; cosine: 1 - cos. projection: fp32 [Dt, Ds], undefined: s itself (equal
// widths). fp32 scalar.
at::Tensor HiddenLoss(const at::Tensor& student_MS, const at::Tensor& teacher_MT,
                      const at::Tensor& projection_TS, const at::Tensor& rows_M, double count,
                      HiddenDistance distance);

enum class RelationReduction {
  kMean,   // Over heads, rows and documents: MiniLMv2's 1 / (A |x|)
  kBatch,  // Mean over heads, sum over rows, mean over documents: what "batchmean" does in
           // BitDistill's published code, whose sequences are documents
};

struct RelationOptions {
  int64_t heads = 1;       // A: the vectors of all heads are cut anew into these
  double temperature = 0;  // 0: sqrt(width of such a head), as published; the code has 1
  bool normalize = false;  // Each vector to length 1 first, as in BitDistill's code
  RelationReduction reduction = RelationReduction::kMean;
};

// The documents of a step's sequences, between whose tokens there are relations.
struct RelationDocuments {
  // [B, T], equal within a document and other than its neighbours'; -1: padding, which counts
  // nowhere: a document without a label, and of a written text (is_generated) what is behind its
  // last token. Empty: every sequence is one document.
  std::vector<int32_t> ids;
  double rows = 0, documents = 0;  // That count
};
RelationDocuments DocumentsOf(const data::Batch& batch, bool is_generated);

// Sum over q, k and v of KL(R_t || R_s), R = softmax(a a^T / temperature) over the tokens of a
// document, all of them: the relation knows no causal order. Features as captured by the decoder,
// [B * T, width]; `heads` divides every width. ids_BT: int32, RelationDocuments' of these
// sequences; undefined: each is one document. count: what the sum is divided by beside the heads,
// rows (kMean) or documents (kBatch). fp32 scalar.
at::Tensor RelationLoss(const model::LayerFeatures& student, const model::LayerFeatures& teacher,
                        const at::Tensor& ids_BT, int64_t batch, double count,
                        const RelationOptions& options);

}  // namespace tern::distill
