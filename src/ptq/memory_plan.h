// What quantizing a model will take of memory at most, told before any work from the model's shape
// and the calibration's size, and what is done under a limit (--memory): where the activations of
// the calibration do not fit they lie in files of the work folder, which changes no number of the
// result. A model of the process, not a measurement: docs/quantize.md has both side by side.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "arch/model_config.h"
#include "recipe/quantize_settings.h"

namespace tern::ptq {

// Sizes in bytes unless the name says otherwise.
struct MemoryFacts {
  ModelConfig config;
  int64_t base_bytes = 0;  // The process as it is now, with the opened model and its tokenizer
  int64_t sequences = 0;   // Of the calibration; 0: there is none
  int64_t sequence = 0;    // Tokens of one
  bool gguf = false;       // A GGUF file is made, else a folder
  bool gptq = false;
  bool trains = false;       // Layers are trained (autoround, block_ap, scale_steps)
  bool measures = false;     // Sensitivity for mixed bits: the model and its gradients
  bool importance = false;   // GGUF: means of the inputs are collected
  bool fp32_tables = false;  // The source's tables are decoded when read: fp32, rotated
  bool checkpoint = false;   // The source is a checkpoint, read as a whole
};

struct MemoryPlan {
  struct Moment {
    std::string name;
    int64_t bytes = 0;
  };
  std::vector<Moment> moments;  // In the order of the work
  bool activations_on_disk = false;

  const Moment& Largest() const;  // REQUIRES: not empty
};

MemoryPlan PredictMemory(const MemoryFacts& facts, bool activations_on_disk);

// The plan under a limit; 0: none, so that all activations stay in memory. Throws InputError, with
// the least limit that would do, for one that nothing here fits in.
MemoryPlan PlanMemory(const MemoryFacts& facts, int64_t limit_bytes);

// Memory that this process has now, files that it has mapped included.
int64_t ResidentBytes();

}  // namespace tern::ptq
