// Mixed bits in GGUF: which block type each matrix gets, so that the file has at most a given size
// and the least KL to the source that its calibration predicts (sensitivity.h), by an exact solver
// (bit_budget.h). Every type that the matrix's rows divide into is tried on the matrix itself, with
// the importance that the file is then written with.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "formats/block_codec.h"
#include "ptq/float_model.h"
#include "ptq/importance.h"
#include "ptq/sensitivity.h"
#include "ptq/size_target.h"

namespace tern::ptq {

struct GgufPlan {
  using Point = SizePlan::Point;
  std::map<std::string, formats::GgmlType> types;  // Of every matrix, by parameter name
  Point chosen;
  std::vector<Point> front;  // As SizePlan's
  int64_t weights = 0;       // Of all matrices
  uint32_t file_type = 0;    // llama_ftype of the type with the most weights
};

// `target`: null for the front alone. `other_bytes`: of the file beside its matrices. `types`:
// those that may be chosen, "q4_0,q6_k"; empty: all. Throws UsageError for a type that is none,
// InputError when the target is below the smallest file, which it names.
GgufPlan PlanGguf(FloatModel* model, const SizeTarget* target, int64_t other_bytes,
                  const std::string& types, const Sensitivity& sensitivity,
                  const Importance& importance);

// Throws UsageError for a type that is none, InputError for a matrix that no type of `types`
// divides.
void CheckGgufTypes(const std::string& types, const ModelConfig& config);

SizePlan SizePlanOf(const GgufPlan& plan);

// Bytes of a tensor in the file: its rows, padded.
int64_t GgufTensorBytes(formats::GgmlType type, const std::vector<int64_t>& shape);

}  // namespace tern::ptq
