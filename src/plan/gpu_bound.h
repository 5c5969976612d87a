// What a training takes at least on GPUs, from published peaks: a bound, not a measurement, and no
// claim that this version trains on GPUs.
#pragma once

#include <cstdint>
#include <string>

#include "plan/plan.h"

namespace tern::plan {

// Published of one GPU and the machine it stands in.
struct GpuPeaks {
  const char* name;  // As in --device
  const char* title;
  double bf16_flops;  // Dense, FP32 sums, operations a second
  double memory_bytes;
  double link_bytes;     // A second, one direction, to the others of the machine
  double network_bytes;  // A second, one direction, a GPU's share of the machine's; 0: none
  int64_t per_machine;   // GPUs
};

// Throws UsageError for another name.
const GpuPeaks& GpuByName(const std::string& name);

struct GpuBound {
  double work_seconds = 0;               // Of a step, at the peak
  double near_bytes = 0, far_bytes = 0;  // Of a step over a GPU's links (parallel/traffic.h)
  double exchange_seconds = 0;  // Of a step: both links at once at their full speed, the longer
  double seconds = 0;           // Of the stage: work and exchange side by side, the longer counts
  bool fits = false;            // The plan's memory is within the GPU's
};

// REQUIRES: the plan's machines have as many ranks as these have GPUs. Throws RecipeError when
// there are more ranks than GPUs in a machine without a network.
GpuBound BoundOnGpus(const TrainPlan& plan, int64_t steps, const GpuPeaks& gpu);

// Lines below a plan.
std::string FormatBound(const TrainPlan& plan, const GpuPeaks& gpu, const GpuBound& bound);

}  // namespace tern::plan
