// What a user can ask of post-training quantization, as options of `tern quantize` and as keys of a
// recipe's quantize stage: one struct for both. Names and help of the keys are in schema_ptq.cc,
// those of the options in cli/quantize.cc (a test holds the two lists equal); what goes with what
// is checked in ptq/check_options.h.
#pragma once

#include <cstdint>
#include <string>

namespace tern::recipe {

// Of training a layer, when nothing else is said: as published of AutoRound.
inline constexpr int64_t kLayerSteps = 200;

struct BlockApSettings {    // ptq/block_ap.h
  double weight_lr = 1e-5;  // EfficientQAT: 2e-5 for 2 bits, 1e-5 for 3 and 4
  double scale_lr = 1e-4;   // Of scales and zero points
  bool operator==(const BlockApSettings&) const = default;
};

struct GptqSettings {
  double damping = 0.01;         // Part of the mean of the Hessian's diagonal added to it
  bool activation_order = true;  // Columns by falling diagonal, groups static
  int64_t rounds = 2;            // Of ptq/refine.h afterwards
};

struct QuantizeSettings {
  std::string to = "int4";  // ptq/scheme.h, or a mixture of ptq/gguf_mix.h
  std::string to_size;      // Instead of `to`, mixed types in so many bytes: "90MiB"
  double to_bits = 0;       // The same, in bits a weight; 0: not asked
  std::string types;        // Of mixed types, those that may be chosen: "int4,w8"; empty: all
  int64_t group = -1;       // -1: the scheme's own
  std::string container;    // ptq/scheme.h; empty: compressed-tensors
  std::string
      method;  // ptq/method.h, of GGUF rtn | imatrix; empty: gptq or imatrix with a calibration
  bool min_max = false;         // Ranges from the largest weights, no search
  bool rotate = false;          // ptq/rotation.h, before everything else
  bool channel_scales = false;  // ptq/channel_scales.h, before the method; needs a calibration
  std::string calibration;      // ptq/calibration.h; empty: none, in a recipe its own training text
  std::string field = "text";
  int64_t calibration_tokens = 65536, sequence = 512;
  GptqSettings gptq;
  int64_t layer_steps = 0;  // Of methods that train a layer (ptq/layer_training.h); 0: kLayerSteps
  int64_t batch = 1;        // Sequences of such a step, and of scale_steps
  BlockApSettings block_ap;
  int64_t scale_steps = 0;  // ptq/scale_training.h, after the method; 0: none
  std::string imatrix;      // GGUF: ptq/importance.h; read when it exists, else written
  bool pure = false;        // GGUF: one type for all matrices
  std::string memory;       // Limit of the process's memory, ptq/memory_plan.h: "2GiB"; empty: none
  bool allow_requantize = false;
  double max_kl = 0;  // Above 0: a result whose mean KL to the source is larger is refused
};

// `calibration` of a recipe's stage that is to have none.
inline constexpr const char* kNoCalibration = "none";

}  // namespace tern::recipe
