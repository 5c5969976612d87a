// Mixed bits in a folder of compressed-tensors: which scheme each group of matrices that engines
// fuse gets (q, k, v; o; gate, up; down), so that the files of tensors have at most a given size
// and the least KL to the source that the calibration predicts for rounding to nearest
// (sensitivity.h), by an exact solver (bit_budget.h). GPTQ then loses less than is predicted, of
// every choice.
#pragma once

#include <string>
#include <vector>

#include "ptq/float_model.h"
#include "ptq/importance.h"
#include "ptq/quantize_model.h"
#include "ptq/scheme.h"
#include "ptq/sensitivity.h"
#include "ptq/size_target.h"
#include "quant/weight_quantizer.h"

namespace tern::ptq {

// The schemes that `types` names ("int4,w8"; empty: w2, w3, int4 and w8), with `group` as
// SchemeByName takes it. Throws UsageError for a name that is none, or quantizes activations, whose
// cost the prediction does not know.
std::vector<Scheme> FolderCandidates(const std::string& types, int64_t group,
                                     const ModelConfig& config);

struct FolderPlan {
  SchemeMap schemes;
  SizePlan plan;
};

// `target`: null for the front alone. Throws InputError when it is below the smallest folder, which
// it names. `model` is read once.
FolderPlan PlanFolder(FloatModel* model, const SizeTarget* target,
                      const std::vector<Scheme>& candidates, const quant::RangeSearch& range,
                      const Sensitivity& sensitivity, const Importance& importance);

// The same from options with a calibration of these tokens: collects importance and sensitivity,
// each with a reading of the model of its own, activations in `room`. `target` as above.
FolderPlan PlanFolder(const QuantizeOptions& options, const SizeTarget* target,
                      const at::Tensor& tokens_BT, const ActivationRoom& room = {});

// The sizes that could be had and their predicted KL. Throws as QuantizeModel.
SizePlan FolderFront(const QuantizeOptions& options);

}  // namespace tern::ptq
