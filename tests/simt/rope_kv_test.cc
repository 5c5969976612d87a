// The CUDA kernel between projections and attention, run from the very source that nvcc compiles,
// against the CPU's: bit for bit, in order and with shuffled schedules, and what lies between the
// rows stays.
#include "kernels/rope_kv/rope_kv.cuh"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/rope_kv_problem.h"
#include "tests/simt/device_buffer.h"

namespace tern::kernels {
namespace {

// What the device makes of the problem is what the CPU does, which uses the problem up.
void ExpectTheCpus(RopeKvProblem& problem, const simt::LaunchOptions& options = {}) {
  DeviceBuffer<float> q(problem.q);
  DeviceBuffer<char> cache(problem.cache);
  RopeKvArgs args = problem.args;
  args.q = q.data();
  args.cache = KvPagesAt(cache.data(), args.cache.type, args.kv_heads, args.head_width);
  simt::Launch(
      {static_cast<unsigned>(args.heads + 2 * args.kv_heads), static_cast<unsigned>(args.rows.m)},
      {kRopeKvThreads},
      [&] {
        if (args.cache.type == KvType::kF16) {
          RopeKvKernel<uint16_t>(args);
        } else {
          RopeKvKernel<int8_t>(args);
        }
      },
      options);
  RopeKv(problem.args, SerialFor);
  EXPECT_TRUE(SameBits(q.ToVector(), problem.q)) << args.rows.m << " x " << args.head_width;
  EXPECT_TRUE(cache.ToVector() == problem.cache) << args.rows.m << " x " << args.head_width;
}

TEST(RopeKvCudaTest, EqualsTheCpu) {
  for (const KvType type : {KvType::kF16, KvType::kInt8}) {
    for (const int64_t m : {0, 1, 3}) {
      for (const int64_t width : {2, 6, 64, 136}) {
        for (const int64_t kv_heads : {1, 3}) {
          RopeKvProblem in_order(type, m, 5, kv_heads, width);
          ExpectTheCpus(in_order);
          RopeKvProblem shuffled(type, m, 5, kv_heads, width);
          ExpectTheCpus(shuffled, {.shuffle = true, .seed = 2});
        }
      }
    }
  }
}

TEST(RopeKvCudaTest, ZerosAndWhatIsNotFinite) {
  for (const KvType type : {KvType::kF16, KvType::kInt8}) {
    for (const bool finite : {true, false}) {
      RopeKvProblem problem(type, 3, 2, 1, 20);
      problem.k[5] = 0.0f, problem.k[7] = 1e-20f;
      std::fill_n(problem.v.begin(), 20, 0.0f);  // A token of zeros
      if (!finite) {
        problem.k[27] = std::nanf("");
        problem.v[problem.v.size() - 4] = HUGE_VALF;
      }
      ExpectTheCpus(problem);
    }
  }
}

}  // namespace
}  // namespace tern::kernels
