// The CUDA kernel between projections and attention, run from the very source that nvcc compiles,
// against the CPU's: bit for bit, in order and with shuffled schedules, and what lies between the
// rows stays.
#include "kernels/rope_kv/rope_kv.cuh"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/rope/rope.h"
#include "tests/kernels/isa_test_util.h"
#include "tests/simt/device_buffer.h"

namespace tern::kernels {
namespace {

constexpr int64_t kContext = 70, kPages = 3;

struct Result {
  std::vector<float> q;
  std::vector<char> cache;
  bool operator==(const Result& other) const {
    return SameBits(q, other.q) && cache == other.cache;
  }
};

struct Problem {
  Problem(KvType type, int64_t m, int64_t heads, int64_t kv_heads, int64_t width)
      : type(type),
        m(m),
        heads(heads),
        kv_heads(kv_heads),
        width(width),
        q(RandomFloats(m * (heads * width + 5), 1)),
        k(RandomFloats(m * (kv_heads * width + 1), 2)),
        v(RandomFloats(m * (kv_heads * width + 2), 3)),
        cosine(static_cast<size_t>(kContext * width / 2)),
        sine(cosine.size()) {
    RopeTable(kContext, width, 10000.0, {}, cosine.data(), sine.data());
    for (int64_t row = 0; row < m; ++row)
      positions.push_back(static_cast<int32_t>((31 * row + 3) % kContext));
    if (m > 1) positions.back() = kContext - 1;
    for (int32_t page = 0; page < kPages; ++page) table.push_back(kPages - 1 - page);
  }

  RopeKvArgs Args(float* on_q, char* cache) const {
    return {on_q,
            k.data(),
            v.data(),
            heads * width + 5,
            kv_heads * width + 1,
            kv_heads * width + 2,
            heads,
            kv_heads,
            width,
            cosine.data(),
            sine.data(),
            {m, positions.data(), nullptr, table.data(), kPages},
            KvPagesAt(cache, type, kv_heads, width)};
  }

  Result OfCpu() const {
    Result out{q, std::vector<char>(static_cast<size_t>(CacheBytes()), 1)};
    RopeKv(Args(out.q.data(), out.cache.data()), SerialFor);
    return out;
  }

  Result OfDevice(const simt::LaunchOptions& options = {}) const {
    DeviceBuffer<float> on_q(q);
    DeviceBuffer<char> cache(CacheBytes(), 1);
    const RopeKvArgs args = Args(on_q.data(), cache.data());
    simt::Launch(
        {static_cast<unsigned>(heads + 2 * kv_heads), static_cast<unsigned>(m)}, {kRopeKvThreads},
        [&] {
          if (type == KvType::kF16) {
            RopeKvKernel<uint16_t>(args);
          } else {
            RopeKvKernel<int8_t>(args);
          }
        },
        options);
    return {on_q.ToVector(), cache.ToVector()};
  }

  int64_t CacheBytes() const { return kPages * KvPageBytes(type, kv_heads, width); }

  KvType type;
  int64_t m, heads, kv_heads, width;
  std::vector<float> q, k, v, cosine, sine;
  std::vector<int32_t> positions, table;
};

TEST(RopeKvCudaTest, EqualsTheCpu) {
  for (const KvType type : {KvType::kF16, KvType::kInt8}) {
    for (const int64_t m : {0, 1, 3}) {
      for (const int64_t width : {2, 6, 64, 136}) {
        for (const int64_t kv_heads : {1, 3}) {
          const Problem problem(type, m, 5, kv_heads, width);
          EXPECT_TRUE(problem.OfDevice() == problem.OfCpu()) << m << " x " << width;
          EXPECT_TRUE(problem.OfDevice({.shuffle = true, .seed = 2}) == problem.OfCpu())
              << m << " x " << width;
        }
      }
    }
  }
}

TEST(RopeKvCudaTest, ZerosAndWhatIsNotFinite) {
  for (const KvType type : {KvType::kF16, KvType::kInt8}) {
    Problem problem(type, 3, 2, 1, 20);
    problem.k[5] = 0.0f, problem.k[7] = 1e-20f;
    std::fill_n(problem.v.begin(), problem.width, 0.0f);  // A token of zeros
    EXPECT_TRUE(problem.OfDevice() == problem.OfCpu());
    problem.k[27] = std::nanf("");
    problem.v[problem.v.size() - 4] = HUGE_VALF;
    EXPECT_TRUE(problem.OfDevice() == problem.OfCpu());
  }
}

}  // namespace
}  // namespace tern::kernels
