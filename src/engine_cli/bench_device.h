// Times of a device's products, for scripts/gpu_check: the shapes and numbers of tokens of
// docs/kernel_bounds.md, so that measurements stand beside bounds.
#pragma once

#include <string>
#include <vector>

namespace tern::engine_cli {

struct DeviceBenchFlags {
  std::string device = "cuda";
  std::vector<std::string> shapes{"2560x2560", "6912x2560", "2560x6912", "4096x4096",
                                  "128256x2560"};
  std::vector<int64_t> tokens{1, 3, 8, 32, 512};
  int rounds = 20;
  bool json = false;
};

// Prints, of each product (ternary, and 4 bits in groups of 128 with fp16 scales), shape and number
// of tokens, the least microseconds a product of several recorded ones took. Weights beyond every
// cache of today's GPUs take turns. Throws UsageError for a shape that is none, ResourceError of
// the device.
void RunDeviceBench(const DeviceBenchFlags& flags);

}  // namespace tern::engine_cli
