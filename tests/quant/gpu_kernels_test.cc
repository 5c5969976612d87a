// BitLinear's CUDA kernels as the trainer calls them, run by the emulator on tensors of the CPU:
// the bits of the CPU kernels.
#include "quant/gpu_kernels.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "quant/ternary.h"
#include "quant/ternary_rows.h"

#if defined(TERN_HAVE_SIMT)
namespace tern::quant {
namespace {

TEST(GpuKernelsTest, HaveTheCpuKernelsBits) {
  const GpuKernels gpu(kernels::SimtDeviceApi().kernels);
  at::manual_seed(11);
  for (const auto& [m, n, k] : {std::tuple<int64_t, int64_t, int64_t>{1, 1, 1},
                                {3, 5, 7},
                                {33, 48, 130},
                                {64, 40, 512},
                                {9, 100, 384}}) {
    const at::Tensor w_NK = at::randn({n, k}) * 0.05, x_MK = at::randn({m, k});
    const std::vector<float> sums = BlockSums(w_NK);
    EXPECT_TRUE(at::equal(gpu.AbsBlockSums(w_NK), at::tensor(sums)));
    const TernaryWeight before = QuantizeTernary(at::randn({n, k})),
                        want = QuantizeTernary(w_NK, before.t2_NC);
    const TernaryWeight w = gpu.QuantizeTernary(w_NK, want.beta, before.t2_NC);
    EXPECT_TRUE(at::equal(w.t2_NC, want.t2_NC)) << n << " x " << k;
    EXPECT_EQ(w.zeros, want.zeros);
    EXPECT_EQ(w.flips, want.flips);
    EXPECT_EQ(w.k, want.k);
    const Int8Rows codes = QuantizeRows(x_MK), x = gpu.QuantizeRows(x_MK);
    EXPECT_TRUE(at::equal(x.q_MK, codes.q_MK));
    EXPECT_TRUE(at::equal(x.gamma_M, codes.gamma_M));
    EXPECT_TRUE(at::equal(x.sum_M, codes.sum_M));
    EXPECT_EQ(x.k, codes.k);
    EXPECT_TRUE(at::equal(gpu.TernaryMatMul(x, w), TernaryMatMul(codes, want)))
        << m << " x " << n << " x " << k;
  }
}

// The products are compared in tests/nn/bit_linear_gradients_test.cc.
TEST(GpuKernelsTest, RoundGradientsAsLibtorchDoes) {
  const GpuKernels gpu(kernels::SimtDeviceApi().kernels);
  at::manual_seed(12);
  for (const auto& [m, n] : {std::pair<int64_t, int64_t>{1, 1}, {5, 30}, {64, 40}}) {
    const at::Tensor dy_MN = at::randn({m, n}), gamma_M = at::rand({m}) + 0.1;
    const GpuKernels::RoundedGradient got = gpu.RoundGradient(dy_MN, gamma_M, true, true);
    const at::Tensor scale_M1 = gamma_M.div(at::full_like(gamma_M, 127)).unsqueeze(1);
    EXPECT_EQ(got.n, n);
    EXPECT_TRUE(at::equal(got.plain_MC.narrow(1, 0, n), dy_MN.to(at::kBFloat16)));
    EXPECT_TRUE(at::equal(got.scaled_MC.narrow(1, 0, n), (dy_MN * scale_M1).to(at::kBFloat16)));
    EXPECT_FALSE(gpu.RoundGradient(dy_MN, gamma_M, true, false).scaled_MC.defined());
    EXPECT_FALSE(gpu.RoundGradient(dy_MN, {}, true, false).scaled_MC.defined());
  }
}

// No GPU's: nothing is opened.
TEST(GpuKernelsTest, AreNoneForOtherTensors) {
  EXPECT_EQ(GpuKernels::For(at::ones({2, 2})), nullptr);
}

}  // namespace
}  // namespace tern::quant
#endif
