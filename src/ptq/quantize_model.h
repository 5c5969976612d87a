// `tern quantize`: a float model to a folder that engines load, layer by layer. Of a streamed model
// one layer is in memory, of the calibration its residual stream and one layer's Hessians. Killed
// at any moment, it goes on with the first layer that is not done. The result gets its name after
// it has been read again by the engine's reader and every matrix has the quantizer's very values.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "data/token_source.h"
#include "ptq/check.h"
#include "ptq/memory_plan.h"
#include "ptq/size_target.h"
#include "recipe/quantize_settings.h"

namespace tern::ptq {

class FloatModel;
struct Calibration;

struct QuantizeOptions : recipe::QuantizeSettings {
  std::string source, output;
  std::string tokenizer;  // Instead of the model's
  // A model whose tokenizer and other files the output gets instead of the source's; empty: none.
  std::string companions;
  // Of a recipe, instead of `calibration`: a text whose training side is read, opened when needed.
  std::function<const data::TokenSource&()> training_text;
  bool discard_other_work = false;  // Unfinished work of another job is removed, not refused
  bool activations_on_disk = false;  // Also where no limit asks for it
  int threads = 0;                  // Of the engine that checks the result
  std::function<void(int64_t layers_done, int64_t layers)> progress;

  bool HasCalibration() const { return !calibration.empty() || training_text != nullptr; }
};

struct QuantizeReport {
  int64_t layers = 0, matrices = 0, weights = 0;
  int64_t calibration_tokens = 0;
  int64_t fallbacks = 0;            // Matrices whose method failed; the ledger says why
  double bits_per_weight = 0;       // Of the quantized matrices, scales included
  int64_t size_bytes = 0;           // Of the tensors
  double error = 0, error_rtn = 0;  // Means over the matrices (ledger: error)
  int64_t kl_tokens = 0;            // Held-out tokens; 0 without a calibration
  double mean_kl = 0, top1_agreement = 0;
  std::string scheme;            // In words
  std::optional<SizePlan> plan;  // Of a size that was asked for
  int64_t predicted_memory_bytes = 0;  // Of the process at most
  bool activations_on_disk = false;
};

// A GGUF file, by `to`, or of a size by the name of the output; else a folder.
bool MakesGguf(const QuantizeOptions& options);

nlohmann::json ReportJson(const QuantizeReport& report);

// What the work is predicted to take of memory, by the options' limit. Throws InputError for one
// that is too small. `calibration`: null: none.
MemoryPlan PlanMemoryOf(const QuantizeOptions& options, FloatModel* model,
                        const Calibration* calibration);

void NoteMemory(const MemoryPlan& plan, QuantizeReport* report);

// Notes what CompareWithSource found. Throws NumericError when max_kl is above 0 and exceeded.
void SetDivergence(const Divergence& found, double max_kl, QuantizeReport* report);

// Throws UsageError, InputError, FormatError, NumericError (weights that are not finite, a file
// that differs, max_kl), ResourceError, StoppedError on a stop signal.
QuantizeReport QuantizeModel(const QuantizeOptions& options);

// The sizes that --to-size could ask for and the KL that is predicted for each; makes nothing.
// Throws as QuantizeModel.
SizePlan MeasureFront(const QuantizeOptions& options);

}  // namespace tern::ptq
