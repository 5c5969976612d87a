// The CUDA rotary embedding, run from the very source that nvcc compiles, against the scalar
// oracle: equal bits in both directions, and what lies between the rows stays.
#include "kernels/rope/rope.cuh"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/rope/rope_impl.h"
#include "tests/kernels/isa_test_util.h"
#include "tests/simt/device_buffer.h"

namespace tern::kernels {
namespace {

constexpr int64_t kContext = 50;

struct Problem {
  Problem(int rows, int heads, int half, int gap)
      : rows(rows),
        heads(heads),
        half(half),
        ldx(heads * 2 * half + gap),
        x(RandomFloats(rows * ldx, static_cast<uint32_t>(rows * 1000 + half))),
        cosine(static_cast<size_t>(kContext * half)),
        sine(static_cast<size_t>(kContext * half)) {
    RopeTable(kContext, 2 * half, 10000.0, {}, cosine.data(), sine.data());
    for (int row = 0; row < rows; ++row) positions.push_back((7 * row + 3) % kContext);
    if (rows > 1) positions.back() = kContext - 1;
  }

  std::vector<float> Oracle(float sign) const {
    std::vector<float> out = x;
    for (int row = 0; row < rows; ++row) {
      const int64_t at = int64_t{positions[static_cast<size_t>(row)]} * half;
      RopeRowRef(out.data() + row * ldx, heads, half, cosine.data() + at, sine.data() + at, sign);
    }
    return out;
  }

  std::vector<float> Emulated(float sign, const simt::LaunchOptions& options = {}) const {
    DeviceBuffer<float> out(x);
    const DeviceBuffer<float> c(cosine), s(sine);
    const DeviceBuffer<int32_t> p(positions);
    const RopeArgs args{out.data(), p.data(), c.data(), s.data(), rows, heads, half, ldx, sign};
    simt::Launch(
        {static_cast<unsigned>(rows)}, {kRowThreads}, [&] { RopeKernel(args); }, options);
    return out.ToVector();
  }

  int rows, heads, half;
  int64_t ldx;
  std::vector<float> x, cosine, sine;
  std::vector<int32_t> positions;
};

TEST(RopeCudaTest, EqualsTheOracle) {
  for (int rows : {0, 1, 3}) {
    for (int heads : {1, 5}) {
      for (int half : {1, 3, 32, 64, 100}) {
        const Problem problem(rows, heads, half, rows == 3 ? 5 : 0);
        for (float sign : {1.0f, -1.0f}) {
          EXPECT_EQ(problem.Emulated(sign), problem.Oracle(sign)) << heads << " x " << half;
          EXPECT_EQ(problem.Emulated(sign, {.shuffle = true, .seed = 2}), problem.Oracle(sign))
              << heads << " x " << half;
        }
      }
    }
  }
}

}  // namespace
}  // namespace tern::kernels
