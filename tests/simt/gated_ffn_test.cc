// The CUDA gate, run from the very source that nvcc compiles, against the scalar oracle: equal
// bits for every count and alignment, in place too, and nothing written beyond.
#include "kernels/gated_ffn/gated_ffn.cuh"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/gated_ffn/gated_ffn_impl.h"
#include "tests/kernels/isa_test_util.h"
#include "tests/simt/device_buffer.h"

namespace tern::kernels {
namespace {

constexpr int64_t kBeyond = 4;  // Elements after the last that must stay.

template <GateActivation kActivation>
void Launch(const GatedFfnArgs& args, unsigned blocks, const simt::LaunchOptions& options = {}) {
  simt::Launch(
      {blocks}, {kRowThreads}, [&] { GatedFfnKernel<kActivation>(args); }, options);
}

std::vector<float> Values(int64_t count, uint32_t seed) {
  std::vector<float> values = RandomFloats(count + kBeyond, seed, 4.0f);
  // The ends of exp, zeros of both signs and huge values.
  const float special[] = {0.0f, -0.0f, 89.0f, -89.0f, 105.0f, -105.0f, 1e30f, -1e30f};
  for (size_t i = 0; i < 8 && static_cast<int64_t>(5 * i) < count; ++i) {
    values[5 * i] = special[i];
  }
  return values;
}

template <GateActivation kActivation>
void ExpectExact() {
  for (int64_t count : {0, 1, 3, 4, 5, 1000, 1023, 1024, 1025, 5000}) {
    for (int64_t skip : {0, 1}) {  // 1: nothing is aligned.
      const DeviceBuffer<float> gate(Values(count + skip, 1)), up(Values(count + skip, 2));
      DeviceBuffer<float> expected(count + skip + kBeyond, 7.0f), h(count + skip + kBeyond, 7.0f);
      GatedFfnForwardRef(kActivation, gate.data() + skip, up.data() + skip, count,
                         expected.data() + skip);
      for (unsigned blocks : {1u, 3u}) {
        Launch<kActivation>({gate.data() + skip, up.data() + skip, h.data() + skip, count}, blocks,
                            {.shuffle = blocks == 3, .seed = 4});
        EXPECT_EQ(h.ToVector(), expected.ToVector()) << count << " + " << skip;
      }
      DeviceBuffer<float> in_place(gate.ToVector());
      Launch<kActivation>({in_place.data() + skip, up.data() + skip, in_place.data() + skip, count},
                          2);
      for (int64_t i = skip; i < skip + count; ++i) {
        EXPECT_EQ(in_place.data()[i], expected.data()[i]) << count << " in place " << i;
      }
    }
  }
}

TEST(GatedFfnCudaTest, SiluEqualsTheOracle) { ExpectExact<GateActivation::kSilu>(); }
TEST(GatedFfnCudaTest, SquaredReluEqualsTheOracle) { ExpectExact<GateActivation::kSquaredRelu>(); }

}  // namespace
}  // namespace tern::kernels
