// Rotated and quantized inputs of linear layers: values and gradients against closed forms.
#include "nn/input_transform.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "base/parallel.h"
#include "kernels/round_inputs/round_inputs.h"
#include "nn/bit_linear.h"
#include "quant/hadamard.h"

namespace tern::nn {
namespace {

at::Tensor Random(at::IntArrayRef shape, uint64_t seed, double scale = 1.0) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::empty(shape, at::kFloat).normal_(0, scale, generator);
}

constexpr InputCodes kCodes[] = {InputCodes::kInt8, InputCodes::kInt4Absmean,
                                 InputCodes::kInt4Absmax};

// dL/dx of L = <c, x H> is c H.
TEST(RotateTest, TheGradientIsRotatedBack) {
  const at::Tensor x = Random({6, 96}, 1).set_requires_grad(true), c = Random({6, 96}, 2);
  const at::Tensor y = Rotate(x);
  EXPECT_TRUE(at::equal(y, quant::Hadamard(x.detach())));
  torch::autograd::backward({y}, {c});
  EXPECT_TRUE(at::equal(x.grad(), quant::Hadamard(c)));
}

TEST(TransformInputsTest, StraightThroughTheQuantizer) {
  const at::Tensor c = Random({6, 64}, 2);
  for (const InputCodes codes : kCodes) {
    for (const bool hadamard : {false, true}) {
      at::Tensor x = Random({6, 64}, 1, 3.0).set_requires_grad(true);
      const at::Tensor y = TransformInputs(x, {codes, hadamard}, 1);
      const at::Tensor rotated = hadamard ? quant::Hadamard(x.detach()) : x.detach();
      const at::Tensor want = quant::Dequantize(EncodeInputs(rotated, codes));
      EXPECT_TRUE(at::equal(y, want));
      EXPECT_FALSE(at::equal(y, rotated));
      torch::autograd::backward({y}, {c});
      EXPECT_TRUE(at::equal(x.grad(), hadamard ? quant::Hadamard(c) : c));
      const at::Tensor half = TransformInputs(x, {codes, hadamard}, 0.5);
      EXPECT_LT((half - (rotated + want) / 2).abs().max().item<float>(), 1e-6);
    }
  }
  const at::Tensor x = Random({2, 64}, 3);
  EXPECT_TRUE(TransformInputs(x, {}, 1).is_same(x));  // Nothing to do
}

// The values are the shared function's of trainer and engine, with the gradient straight through.
TEST(TransformInputsTest, DynamicInputsAreThoseOfAFile) {
  const at::Tensor c = Random({6, 60}, 2);
  for (const bool fp8 : {false, true}) {
    const InputTransform transform{fp8 ? InputCodes::kFp8Dynamic : InputCodes::kInt8Dynamic};
    at::Tensor x = Random({6, 60}, 1, 3.0);
    x[2].zero_();
    at::Tensor want = at::empty_like(x);
    kernels::RoundInputsArgs args;
    args.x = x.const_data_ptr<float>();
    args.out = want.mutable_data_ptr<float>();
    args.m = 6;
    args.k = 60;
    args.fp8 = fp8;
    kernels::RoundInputs(args, SerialFor);
    x.set_requires_grad(true);
    const at::Tensor y = TransformInputs(x, transform, 1);
    EXPECT_TRUE(at::equal(y, want));
    EXPECT_GT((y - x).abs().max().item<float>(), 0.001f);  // Rounded at all
    torch::autograd::backward({y}, {c});
    EXPECT_TRUE(at::equal(x.grad(), c));
    // Half a step of int8; half a unit of four bits, or of the least number, of FP8.
    const at::Tensor scale = x.detach().abs().amax(1, true) / (fp8 ? 448 : 127.5);
    const at::Tensor limit =
        fp8 ? at::maximum(x.detach().abs() * 0x1p-4, scale * 0x1p-10) : scale / 2;
    EXPECT_TRUE(((y - x).abs() <= limit * (1 + 1e-5)).all().item<bool>());
  }
}

// y = acc (beta gamma / 127) of integers, exactly; dX = dY (beta Wq) H, dW = dY^T x^.
TEST(BitLinearTest, Int4InputsAreIntegersAndRotatedGradients) {
  for (const InputCodes codes :
       {InputCodes::kNone, InputCodes::kInt4Absmean, InputCodes::kInt4Absmax}) {
    for (const bool hadamard : {false, true}) {
      at::Tensor x = Random({5, 128}, 1, 2.0).set_requires_grad(true);
      at::Tensor w = Random({24, 128}, 2, 0.02).set_requires_grad(true);
      const at::Tensor c = Random({5, 24}, 3);
      BitLinearOptions options;
      options.inputs = {codes, hadamard};
      const at::Tensor y = BitLinear(x, {w}, options)[0];
      const at::Tensor rotated = hadamard ? quant::Hadamard(x.detach()) : x.detach();
      const quant::Int8Rows rows = EncodeInputs(rotated, codes);
      const quant::TernaryWeight q = quant::QuantizeTernary(w.detach());
      EXPECT_TRUE(at::equal(y, quant::TernaryMatMul(rows, q)));
      const at::Tensor values = quant::Dequantize(rows), dense = quant::Dequantize(q, q.beta);
      EXPECT_LT((y - at::matmul(values, dense.t())).abs().max().item<float>(), 1e-4);
      torch::autograd::backward({y}, {c});
      const at::Tensor dx = at::matmul(c, dense);
      EXPECT_LT((x.grad() - (hadamard ? quant::Hadamard(dx) : dx)).abs().max().item<float>(), 1e-5);
      EXPECT_LT((w.grad() - at::matmul(c.t(), values)).abs().max().item<float>(), 1e-4);
    }
  }
}

// Half way to ternary weights the inputs are half way to their codes, too.
TEST(BitLinearTest, WarmupBlendsInt4Inputs) {
  const at::Tensor x = Random({5, 128}, 1, 2.0), w = Random({24, 128}, 2, 0.02);
  BitLinearOptions options;
  options.inputs = {InputCodes::kInt4Absmean, true};
  options.share = 0.25;
  const at::Tensor rotated = quant::Hadamard(x);
  const at::Tensor in =
      rotated * 0.75 + quant::Dequantize(EncodeInputs(rotated, InputCodes::kInt4Absmean)) * 0.25;
  const quant::TernaryWeight q = quant::QuantizeTernary(w);
  const at::Tensor blended = w * 0.75 + quant::Dequantize(q, q.beta) * 0.25;
  const at::Tensor y = BitLinear(x, {w}, options)[0];
  EXPECT_LT((y - at::matmul(in, blended.t())).abs().max().item<float>(), 1e-5);
}

}  // namespace
}  // namespace tern::nn
