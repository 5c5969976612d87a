// BitLinear's backward products by the CUDA kernels, run by the emulator on tensors of the CPU,
// beside libtorch's of dequantized matrices: equal where everything is exact, and else within what
// the two round differently.
#include "nn/bit_linear_gradients.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

#include "kernels/device/device_api.h"

#if defined(TERN_HAVE_SIMT)
namespace tern::nn {
namespace {

struct Gradients {
  at::Tensor dx_MK;
  std::vector<at::Tensor> dw_NK;
};

Gradients Backward(const std::vector<at::Tensor>& dy_MN, const quant::Int8Rows& x,
                   const std::vector<quant::TernaryWeight>& w, ComputeType compute,
                   const quant::GpuKernels* gpu) {
  BitLinearGradients gradients(x, compute, gpu);
  Gradients out;
  for (size_t i = 0; i < w.size(); ++i)
    out.dw_NK.push_back(gradients.OfMatrix(dy_MN[i], w[i], &out.dx_MK, true));
  return out;
}

class BitLinearGradientsTest
    : public testing::TestWithParam<std::tuple<int64_t, int64_t, int64_t>> {
 protected:
  const quant::GpuKernels gpu_{kernels::SimtDeviceApi().kernels};
};

// gamma = 127 and scales that are powers of 2: no rounding anywhere, also in products whose results
// are BF16 (sums of integers below 256).
TEST_P(BitLinearGradientsTest, EqualLibtorchWhereAllIsExact) {
  const auto [m, n, k] = GetParam();
  at::manual_seed(5);
  quant::Int8Rows x = quant::QuantizeRows(at::randn({m, k}));
  x.q_MK.fmod_(3);
  x.gamma_M.fill_(127);
  std::vector<quant::TernaryWeight> w;
  std::vector<at::Tensor> dy_MN;
  for (const float beta : {0.5f, 0.125f}) {
    w.push_back(quant::QuantizeTernary(at::randn({n, k})));
    w.back().beta = beta;
    dy_MN.push_back(at::randint(-1, 2, {m, n}).to(at::kFloat));
  }
  const Gradients want = Backward(dy_MN, x, w, ComputeType::kBf16, nullptr);
  const Gradients got = Backward(dy_MN, x, w, ComputeType::kBf16, &gpu_);
  EXPECT_TRUE(at::equal(got.dx_MK, want.dx_MK));
  for (size_t i = 0; i < w.size(); ++i) EXPECT_TRUE(at::equal(got.dw_NK[i], want.dw_NK[i])) << i;
}

// Both take the same rounded operands, up to 1 + 2^-8 as large as those here, whose products are
// exact in fp32. Sums of L terms differ by L 2^-23 of sum |terms| each, and where the processor
// multiplies BF16 itself libtorch's are rounded to BF16: by 2^-8. A few roundings more: 2^-20.
TEST_P(BitLinearGradientsTest, StayWithinTheRoundingOfSums) {
  const auto [m, n, k] = GetParam();
  at::manual_seed(6);
  const quant::Int8Rows x = quant::QuantizeRows(at::randn({m, k}));
  const std::vector<quant::TernaryWeight> w = {quant::QuantizeTernary(at::randn({n, k}) * 0.05),
                                               quant::QuantizeTernary(at::randn({n, k}))};
  const std::vector<at::Tensor> dy_MN = {at::randn({m, n}), at::randn({m, n}) * 1e-3};
  const Gradients want = Backward(dy_MN, x, w, ComputeType::kBf16, nullptr);
  const Gradients got = Backward(dy_MN, x, w, ComputeType::kBf16, &gpu_);
  at::Tensor size_MK = at::zeros({m, k});
  const auto bound = [](int64_t terms) {
    const double rounded = HasNativeBf16(at::kCPU) ? 0x1p-8 : 0.0;
    return (1 + 0x1p-8) * (rounded + 0x1p-20 + 2.0 * static_cast<double>(terms) * 0x1p-23);
  };
  for (size_t i = 0; i < w.size(); ++i) {
    size_MK += at::mm(dy_MN[i].abs(), quant::Dequantize(w[i], w[i].beta).abs());
    const at::Tensor size_NK = at::mm(dy_MN[i].abs().t(), quant::Dequantize(x).abs());
    EXPECT_TRUE(((got.dw_NK[i] - want.dw_NK[i]).abs() <= size_NK * bound(m)).all().item<bool>());
  }
  EXPECT_TRUE(((got.dx_MK - want.dx_MK).abs() <= size_MK * bound(n)).all().item<bool>());
}

INSTANTIATE_TEST_SUITE_P(Shapes, BitLinearGradientsTest,
                         testing::Values(std::tuple{1, 1, 1}, std::tuple{3, 5, 130},
                                         std::tuple{40, 33, 64}, std::tuple{70, 100, 257}));

TEST_F(BitLinearGradientsTest, MakeWhatIsWanted) {
  const quant::Int8Rows x = quant::QuantizeRows(at::randn({4, 40}));
  const quant::TernaryWeight w = quant::QuantizeTernary(at::randn({7, 40}));
  const at::Tensor dy_MN = at::randn({4, 7});
  for (const quant::GpuKernels* gpu : {static_cast<const quant::GpuKernels*>(nullptr), &gpu_}) {
    const Gradients both = Backward({dy_MN}, x, {w}, ComputeType::kBf16, gpu);
    BitLinearGradients gradients(x, ComputeType::kBf16, gpu);
    at::Tensor dx_MK;
    EXPECT_FALSE(gradients.OfMatrix(dy_MN, w, &dx_MK, false).defined());
    EXPECT_TRUE(at::equal(dx_MK, both.dx_MK));
    EXPECT_TRUE(at::equal(gradients.OfMatrix(dy_MN, w, nullptr, true), both.dw_NK[0]));
    EXPECT_FALSE(gradients.OfMatrix(dy_MN, w, nullptr, false).defined());
  }
}

// The kernels are for BF16: the other compute types are libtorch's, to the bit.
TEST_F(BitLinearGradientsTest, AreLibtorchsInOtherComputeTypes) {
  const quant::Int8Rows x = quant::QuantizeRows(at::randn({20, 60}));
  const quant::TernaryWeight w = quant::QuantizeTernary(at::randn({30, 60}));
  const at::Tensor dy_MN = at::randn({20, 30});
  for (const ComputeType compute : {ComputeType::kFp32, ComputeType::kFp16}) {
    const Gradients want = Backward({dy_MN}, x, {w}, compute, nullptr);
    const Gradients got = Backward({dy_MN}, x, {w}, compute, &gpu_);
    EXPECT_TRUE(at::equal(got.dx_MK, want.dx_MK) && at::equal(got.dw_NK[0], want.dw_NK[0]));
  }
}

}  // namespace
}  // namespace tern::nn
#endif
