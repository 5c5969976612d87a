// Speed of PagedAttention at decoding and prefill for each type of cache, instruction set and
// number of threads, in GB/s of keys, values and scales read once a kv head, beside a plain read of
// the same bytes. Decoding takes cold layers in turn, together larger than the L3. Figures are the
// median and the 5th percentile of repeated calls. Usage: attention_bench [seconds a figure
// [index of the shape]]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/attention/attention.h"
#include "kernels/common/isa.h"

namespace tern::kernels {
namespace {

constexpr int64_t kColdBytes = 192 << 20;

struct Shape {
  int64_t rows, context, heads, kv_heads, head_width;
};

// `layers` caches of one sequence; rows are its last tokens.
struct Problem {
  Problem(const Shape& s, KvType type) : shape(s), pages(s.context / kKvPageTokens) {
    const int64_t page_bytes = KvPageBytes(type, s.kv_heads, s.head_width);
    layer_bytes = pages * page_bytes;
    layers = s.rows == 1 ? kColdBytes / layer_bytes + 1 : 1;
    memory.resize(static_cast<size_t>(layers * layer_bytes / 8));
    std::vector<float> x(static_cast<size_t>(s.context * s.kv_heads * s.head_width));
    std::mt19937 random(7);
    for (float& value : x) value = static_cast<float>(random() * 0x1p-31 - 1.0);
    std::vector<int32_t> all(static_cast<size_t>(s.context));
    std::iota(all.begin(), all.end(), 0);
    table.resize(static_cast<size_t>(pages));
    std::iota(table.begin(), table.end(), 0);
    std::shuffle(table.begin(), table.end(), random);
    const int64_t ld = s.kv_heads * s.head_width;
    for (int64_t layer = 0; layer < layers; ++layer) {
      caches.push_back(
          KvPagesAt(memory.data() + layer * layer_bytes / 8, type, s.kv_heads, s.head_width));
      WriteKv(x.data(), ld, x.data(), ld, s.kv_heads, s.head_width,
              {s.context, all.data(), nullptr, table.data(), pages}, caches.back(), SerialFor);
    }
    positions.assign(all.end() - s.rows, all.end());
    q.resize(static_cast<size_t>(s.rows * s.heads * s.head_width), 0.5f);
    out.resize(q.size());
  }

  void Call(int64_t i, const ParallelFor& parallel) {
    const int64_t ld = shape.heads * shape.head_width;
    const AttentionShape attention{shape.heads, shape.kv_heads, shape.head_width, 0,
                                   1 / std::sqrt(static_cast<float>(shape.head_width))};
    PagedAttention(q.data(), ld, attention,
                   {shape.rows, positions.data(), nullptr, table.data(), pages},
                   caches[static_cast<size_t>(i % layers)], out.data(), ld, parallel);
  }

  // The same bytes, summed.
  void Read(int64_t i, const ParallelFor& parallel) {
    const int64_t words = layer_bytes / 8;
    const uint64_t* from = memory.data() + i % layers * words;
    parallel(words, 4096, [&](int64_t begin, int64_t end) {
      uint64_t sums[8] = {};
      for (int64_t w = begin; w + 8 <= end; w += 8)
        for (int64_t l = 0; l < 8; ++l) sums[l] += from[w + l];
      volatile uint64_t sink = std::accumulate(sums, sums + 8, uint64_t{0});
      (void)sink;
    });
  }

  Shape shape;
  int64_t pages, layer_bytes, layers;
  std::vector<uint64_t> memory;
  std::vector<KvPages> caches;
  std::vector<int32_t> table, positions;
  std::vector<float> q, out;
};

struct Timing {
  double median_s, fast_s;
};

template <class Call>
Timing Measure(double budget_s, const Call& call) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  const auto start = Clock::now();
  for (int64_t i = 0; i < 3 || Clock::now() - start < std::chrono::duration<double>(budget_s);
       ++i) {
    const auto begin = Clock::now();
    call(i);
    times.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times[times.size() / 20]};
}

void Print(const char* name, int threads, const Problem& p, const char* type, const Timing& t) {
  const double bytes = static_cast<double>(p.layer_bytes);
  const Shape& s = p.shape;
  const double macs = 2.0 * static_cast<double>(s.heads * s.head_width) *
                      (static_cast<double>(s.rows) *
                       (static_cast<double>(s.context) - static_cast<double>(s.rows - 1) / 2));
  std::printf("%-8s %7d %-5s %5ld %7ld %5ld %5ld %5ld", name, threads, type,
              static_cast<long>(s.rows), static_cast<long>(s.context), static_cast<long>(s.heads),
              static_cast<long>(s.kv_heads), static_cast<long>(s.head_width));
  for (double seconds : {t.median_s, t.fast_s}) {
    std::printf(" | %10.1f %7.1f %7.1f", seconds * 1e6, bytes / seconds * 1e-9,
                macs / seconds * 1e-9);
  }
  std::printf("\n");
}

void Run(double budget_s, int64_t only) {
  const Shape shapes[] = {{1, 256, 20, 5, 128},  {1, 2048, 20, 5, 128},  {1, 2048, 32, 32, 64},
                          {1, 8192, 20, 5, 128}, {128, 128, 20, 5, 128}, {128, 2048, 20, 5, 128}};
  std::printf("%-8s %7s %-5s %5s %7s %5s %5s %5s | %10s %7s %7s | %10s %7s %7s\n", "isa", "threads",
              "cache", "rows", "context", "H", "J", "E", "median us", "GB/s", "GMAC/s", "p5 us",
              "GB/s", "GMAC/s");
  for (const Shape& shape : shapes) {
    if (only >= 0 && &shape != shapes + only) continue;
    for (KvType type : {KvType::kF16, KvType::kInt8}) {
      Problem problem(shape, type);
      const char* name = type == KvType::kF16 ? "f16" : "int8";
      for (int threads : {1, 2}) {
        ThreadPool pool(threads);
        const ParallelFor parallel = pool.Runner();
        if (shape.rows == 1)
          Print("read", threads, problem, name,
                Measure(budget_s, [&](int64_t i) { problem.Read(i, parallel); }));
        for (Isa isa : AvailableIsas()) {
          if (isa == Isa::kScalar && shape.context > 256) continue;
          SetActiveIsa(isa);
          Print(ToString(isa).data(), threads, problem, name,
                Measure(budget_s, [&](int64_t i) { problem.Call(i, parallel); }));
        }
      }
    }
  }
}

}  // namespace
}  // namespace tern::kernels

int main(int argc, char** argv) {
  tern::kernels::Run(argc > 1 ? std::atof(argv[1]) : 0.3, argc > 2 ? std::atol(argv[2]) : -1);
  return 0;
}
