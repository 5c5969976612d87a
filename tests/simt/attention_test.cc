// The CUDA attention, run from the very source that nvcc compiles, against the
// CPU kernels: bit for bit, in order and with shuffled schedules; a missing barrier is seen.
#include "kernels/attention/attention.cuh"

#include <gtest/gtest.h>

#include <numeric>

#include "kernels/common/isa.h"
#include "tests/kernels/isa_test_util.h"
#include "tests/simt/device_buffer.h"

namespace tern::kernels {
namespace {

struct Problem {
  Problem(KvType type, int64_t heads, int64_t kv_heads, int64_t width, int64_t window)
      : shape{heads, kv_heads, width, window, 0.25f},
        type(type),
        k(RandomFloats(kTokens * kv_heads * width, 1)),
        v(RandomFloats(kTokens * kv_heads * width, 2)),
        pages(kTokens / kKvPageTokens + 1),
        cache_bytes(KvPageBytes(type, kv_heads, width) * pages) {
    positions.resize(kTokens);
    std::iota(positions.begin(), positions.end(), 0);
    table.resize(static_cast<size_t>(pages));
    std::iota(table.rbegin(), table.rend(), 0);
  }

  KvRows Rows(const std::vector<int32_t>& at) const {
    return {static_cast<int64_t>(at.size()), at.data(), nullptr, table.data(), pages};
  }

  std::vector<char> CacheOfCpu() const {
    std::vector<char> cache(static_cast<size_t>(cache_bytes), 1);
    const int64_t ld = shape.kv_heads * shape.head_width;
    WriteKv(k.data(), ld, v.data(), ld, shape.kv_heads, shape.head_width, Rows(positions),
            KvPagesAt(cache.data(), type, shape.kv_heads, shape.head_width), SerialFor);
    return cache;
  }

  std::vector<float> Queries(size_t rows) const {
    return RandomFloats(static_cast<int64_t>(rows) * shape.heads * shape.head_width, 3);
  }

  std::vector<float> OutOfCpu(const std::vector<int32_t>& at) const {
    std::vector<char> cache = CacheOfCpu();
    const std::vector<float> q = Queries(at.size());
    std::vector<float> out(q.size());
    const int64_t ld = shape.heads * shape.head_width;
    PagedAttention(q.data(), ld, shape, Rows(at),
                   KvPagesAt(cache.data(), type, shape.kv_heads, shape.head_width), out.data(), ld,
                   SerialFor);
    return out;
  }

  std::vector<float> OutOfDevice(const std::vector<int32_t>& at,
                                 const simt::LaunchOptions& options = {}) const {
    std::vector<char> cache = CacheOfCpu();
    const DeviceBuffer<float> q(Queries(at.size()));
    const int64_t ld = shape.heads * shape.head_width, m = static_cast<int64_t>(at.size());
    const int segments = static_cast<int>(kTokens / kAttentionSegmentTokens) + 1;
    DeviceBuffer<float> out(m * ld, -3.0f);
    DeviceBuffer<float> states(m * shape.heads * segments * (shape.head_width + 2), 1e9f);
    const AttentionArgs args{q.data(),
                             ld,
                             shape,
                             Rows(at),
                             KvPagesAt(cache.data(), type, shape.kv_heads, shape.head_width),
                             states.data(),
                             segments,
                             out.data(),
                             ld};
    const int64_t group = shape.heads / shape.kv_heads;
    const auto blocks =
        static_cast<unsigned>(shape.kv_heads * ((group + kAttentionHeads - 1) / kAttentionHeads));
    simt::Launch(
        {static_cast<unsigned>(segments), blocks, static_cast<unsigned>(m)}, {kAttentionThreads},
        [&] {
          if (type == KvType::kF16) {
            AttendSegmentsKernel<uint16_t>(args);
          } else {
            AttendSegmentsKernel<int8_t>(args);
          }
        },
        options);
    simt::Launch(
        {static_cast<unsigned>(shape.heads), static_cast<unsigned>(m)}, {kAttentionThreads},
        [&] { JoinSegmentsKernel(args); }, options);
    return out.ToVector();
  }

  static constexpr unsigned kTokens = 300;
  AttentionShape shape;
  KvType type;
  std::vector<float> k, v;
  int64_t pages, cache_bytes;
  std::vector<int32_t> positions, table;
};

std::vector<Problem> Problems() {
  std::vector<Problem> problems;
  for (KvType type : {KvType::kF16, KvType::kInt8}) {
    problems.emplace_back(type, 4, 2, 32, 0);
    problems.emplace_back(type, 9, 1, 20, 100);  // Two blocks of heads, lanes without an element
    problems.emplace_back(type, 1, 1, 136, 33);  // More elements than threads
  }
  return problems;
}

TEST(AttentionCudaTest, ResultsAreTheCpus) {
  for (const Problem& problem : Problems()) {
    for (const auto& rows : {std::vector<int32_t>{0}, std::vector<int32_t>{31, 299, 256}}) {
      EXPECT_EQ(problem.OutOfDevice(rows), problem.OutOfCpu(rows)) << problem.shape.head_width;
    }
  }
}

TEST(AttentionCudaTest, ShuffledSchedulesChangeNothing) {
  const Problem problem(KvType::kInt8, 6, 2, 24, 0);
  const auto want = problem.OutOfCpu({70, 290});
  for (uint32_t seed = 1; seed <= 3; ++seed)
    EXPECT_EQ(problem.OutOfDevice({70, 290}, {.shuffle = true, .seed = seed}), want);
}

// Without barriers scores are read that are not there yet, and TSan names the kernel.
#if defined(TERN_SIMT_TSAN)
TEST(AttentionCudaDeathTest, RaceDetectorFindsAMissingBarrier) {
  const Problem problem(KvType::kF16, 4, 2, 32, 0);
  EXPECT_DEATH(problem.OutOfDevice({100}, {.skip_block_barriers = true}), "data race");
}
#else
TEST(AttentionCudaTest, MissingBarrierGivesWrongResults) {
  const Problem problem(KvType::kF16, 4, 2, 32, 0);
  EXPECT_NE(problem.OutOfDevice({100}, {.skip_block_barriers = true}), problem.OutOfCpu({100}));
}
#endif

}  // namespace
}  // namespace tern::kernels
