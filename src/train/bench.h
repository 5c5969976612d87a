// Speed of training steps on random tokens, without data, checkpoints or logs: what `tern bench
// train` prints and the comparison with other trainers uses.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "arch/model_config.h"
#include "parallel/group.h"
#include "recipe/recipe.h"

namespace tern::train {

struct BenchOptions {
  ModelConfig model;
  recipe::Precision precision = recipe::Precision::kFp32;
  int64_t batch = 8, sequence_length = 256;
  int64_t steps = 10, warmup = 2;
  parallel::Group* group =
      nullptr;  // Not null: the ranks share the batch; all return the same times
  recipe::ParallelConfig parallel;
  at::Device device = at::kCPU;
};

struct BenchResult {
  double tokens_per_second = 0;          // Median over the steps after warm-up
  std::vector<double> step_seconds;      // Each step after warm-up
  double first_loss = 0, last_loss = 0;  // Of the warm-up's first and of the last step
  double gemm_flops = 0;                 // Measured fp32 GEMM peak
  double flops_per_token = 0;
  int64_t peak_rss_bytes = 0;
  std::map<std::string, double> sent_bytes;  // By this rank in a step, by kind
};

BenchResult BenchTrain(const BenchOptions& options);

// The two shapes of the published comparison: "d256" (d256 x 6 layers, FFN 768, vocabulary 4096)
// and "d512" (d512 x 8, FFN 1536, vocabulary 8192). Throws UsageError for another name.
ModelConfig BenchShape(const std::string& name);

}  // namespace tern::train
