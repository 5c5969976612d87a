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

namespace tern::ptq {

// One of them is above 0.
struct SizeTarget {
  int64_t size_bytes = 0;      // Of the file
  double bits_per_weight = 0;  // 8 x the file's bytes / the matrices' weights
};

struct GgufPlan {
  struct Point {
    int64_t size_bytes = 0;
    double predicted_kl = 0;  // Nats a token
  };
  std::map<std::string, formats::GgmlType> types;  // Of every matrix, by parameter name
  Point chosen;
  std::vector<Point> front;  // The best at up to 16 sizes from the smallest file to the largest
  uint32_t file_type = 0;    // llama_ftype of the type with the most weights
};

// `other_bytes`: of the file beside its matrices. Throws InputError when the target is below the
// smallest file, which it names.
GgufPlan PlanGguf(FloatModel* model, const SizeTarget& target, int64_t other_bytes,
                  const Sensitivity& sensitivity, const Importance& importance);

// Bytes of a tensor in the file: its rows, padded.
int64_t GgufTensorBytes(formats::GgmlType type, const std::vector<int64_t>& shape);

}  // namespace tern::ptq
