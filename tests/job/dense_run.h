// A small dense model, trained and shipped once a process: what other recipes start from or learn
// of.
#pragma once

#include <memory>

#include "base/stop_signal.h"
#include "job/run.h"
#include "tests/job/small_run.h"

namespace tern::job {

inline constexpr const char* kDenseRecipe = R"(name: small
model: {hidden_size: 128, intermediate_size: 128, num_layers: 2, num_heads: 4, num_kv_heads: 2,
        context_length: 32, sub_norms: none, linear: dense, tied_head: true}
data: {files: [TEXTS/*.txt], validation_fraction: 0.2, tokenizer: {vocab_size: 300}}
stages:
  - train: {steps: 40, tokens_per_step: 256, sequence_length: 32, precision: fp32, eval_tokens: 0,
            eval_every: 0, schedule: {kind: constant, peak_lr: 4.0e-3}}
  - export: {formats: [hf/f32]}
)";

inline const SmallRun& DenseRun() {
  static const std::unique_ptr<SmallRun> run = [] {
    ClearStopRequest();
    auto made = std::make_unique<SmallRun>(kDenseRecipe);
    RunRecipe(made->Load(), {made->runs(), "", ""});
    return made;
  }();
  return *run;
}

// The folder of its fp32 export.
inline std::string DenseModel() { return DenseRun().Path("exports/small-hf-f32"); }

}  // namespace tern::job
