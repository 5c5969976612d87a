// Speed of TernaryGemm for each instruction set, shape and number of threads, in GMAC/s (one
// multiply-add = one MAC), and for one token also in GB/s of packed weights. Figures are the median
// and the 5th percentile of repeated calls (on a shared machine the latter is the kernel, the
// former the day); one token takes cold matrices, a set larger than the L3. Usage: kernel_bench
// [seconds a figure]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/common/isa.h"
#include "kernels/ternary_gemm/ternary_gemm.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::kernels {
namespace {

constexpr int64_t kColdBytes = 64 << 20;

struct Shape {
  int64_t m, n, k;
};

struct Problem {
  explicit Problem(const Shape& s) {
    const int64_t matrix_bytes = s.n * T2RowBytes(s.k);
    matrices = s.m == 1 ? kColdBytes / matrix_bytes + 1 : 1;
    std::mt19937 random(7);
    weights.resize(static_cast<size_t>(matrices * matrix_bytes));
    for (auto& byte : weights) byte = static_cast<uint8_t>(random() & 0x55);  // Codes 0 and 1.
    x.resize(static_cast<size_t>(s.m * T2PaddedK(s.k)));
    for (auto& value : x) value = static_cast<int8_t>(random());
    sums.assign(static_cast<size_t>(s.m), 0);
    scales.assign(static_cast<size_t>(s.m), 1.0f);
    y.resize(static_cast<size_t>(s.m * s.n));
    args = {weights.data(), x.data(), sums.data(), scales.data(), y.data(), s.m, s.n, s.k,
            T2PaddedK(s.k), s.n};
  }

  std::vector<uint8_t> weights;
  std::vector<int8_t> x;
  std::vector<int32_t> sums;
  std::vector<float> scales, y;
  int64_t matrices = 1;
  TernaryGemmArgs args;
};

struct Timing {
  double median_s, fast_s;
};

Timing Measure(Problem& problem, const ParallelFor& parallel, double budget_s) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  const auto start = Clock::now();
  const int64_t matrix_bytes = problem.args.n * T2RowBytes(problem.args.k);
  for (int64_t i = 0; i < 3 || Clock::now() - start < std::chrono::duration<double>(budget_s);
       ++i) {
    problem.args.w_t2 = problem.weights.data() + i % problem.matrices * matrix_bytes;
    const auto begin = Clock::now();
    TernaryGemm(problem.args, parallel);
    times.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times[times.size() / 20]};
}

void Run(double budget_s) {
  const Shape shapes[] = {{2048, 256, 256}, {2048, 768, 256},  {2048, 512, 512}, {2048, 1536, 512},
                          {2048, 768, 768}, {2048, 768, 1536}, {512, 768, 768},  {64, 768, 768},
                          {16, 768, 768},   {8, 768, 768},     {4, 2560, 2560},  {1, 256, 256},
                          {1, 768, 768},    {1, 2560, 2560},   {1, 4096, 4096}};
  std::printf("%-8s %7s %6s %6s %6s | %10s %8s %6s | %10s %8s %6s\n", "isa", "threads", "M", "N",
              "K", "median us", "GMAC/s", "GB/s", "p5 us", "GMAC/s", "GB/s");
  for (int threads : {1, 2}) {
    ThreadPool pool(threads);
    for (Isa isa : AvailableIsas()) {
      SetActiveIsa(isa);
      for (const Shape& shape : shapes) {
        const double macs = static_cast<double>(shape.m * shape.n * shape.k);
        if (isa == Isa::kScalar && macs > 1e8) continue;
        Problem problem(shape);
        const Timing timing = Measure(problem, pool.Runner(), budget_s);
        std::printf("%-8.*s %7d %6ld %6ld %6ld", static_cast<int>(ToString(isa).size()),
                    ToString(isa).data(), threads, static_cast<long>(shape.m),
                    static_cast<long>(shape.n), static_cast<long>(shape.k));
        for (double s : {timing.median_s, timing.fast_s}) {
          const double bytes = static_cast<double>(shape.n * T2RowBytes(shape.k));
          std::printf(" | %10.1f %8.1f %6.1f", s * 1e6, macs / s * 1e-9, bytes / s * 1e-9);
        }
        std::printf("\n");
      }
    }
  }
}

}  // namespace
}  // namespace tern::kernels

int main(int argc, char** argv) {
  tern::kernels::Run(argc > 1 ? std::atof(argv[1]) : 0.3);
  return 0;
}
