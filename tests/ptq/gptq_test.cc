// GPTQ against its definition written column by column in double, and what it must do for a layer.
#include "ptq/gptq.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "ptq/refine.h"

namespace tern::ptq {
namespace {

using quant::IntFormat;

at::Tensor Random(at::IntArrayRef shape, uint64_t seed) {
  at::set_num_threads(1);  // Matrices are small: threads would only wait for each other.
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator);
}

// Inputs whose columns are correlated and of different size, as those of real layers.
at::Tensor Hessian(int64_t k, int64_t tokens, uint64_t seed) {
  const at::Tensor mix_KK = Random({k, k}, seed) * 0.2 + at::eye(k);
  const at::Tensor size_K = (Random({k}, seed + 1) * 0.7).exp();
  const at::Tensor x_MK = Random({tokens, k}, seed + 2).mm(mix_KK) * size_K;
  return x_MK.t().mm(x_MK) * (2.0 / static_cast<double>(tokens));
}

// Columns one after the other in double, each rounded with the given static scales, its error
// spread over the columns behind it by the inverse of the remaining Hessian (Frantar et al.,
// equations 2 and 3), which is updated by elimination and not by a Cholesky factor.
at::Tensor Oracle(const at::Tensor& w_NK, const at::Tensor& h_KK, const at::Tensor& scale_NG,
                  int64_t group, double damping) {
  at::Tensor w = w_NK.to(at::kDouble).clone(), h = h_KK.to(at::kDouble).clone();
  h.diagonal().add_(damping * h.diagonal().mean());
  at::Tensor inverse = at::linalg_inv(h);
  at::Tensor out = at::empty_like(w);
  for (int64_t i = 0; i < w.size(1); ++i) {
    const at::Tensor s = scale_NG.select(1, i / group).to(at::kDouble);
    const at::Tensor value = (w.select(1, i) / s).round().clamp(-8, 7) * s;
    const at::Tensor error = (w.select(1, i) - value) / inverse[i][i];
    out.select(1, i).copy_(value);
    w.sub_(error.unsqueeze(1) * inverse[i].unsqueeze(0));
    inverse = inverse - inverse.select(1, i).unsqueeze(1) * inverse[i].unsqueeze(0) / inverse[i][i];
  }
  return out;
}

TEST(GptqTest, IsTheDefinition) {
  const int64_t k = 320;  // Two and a half blocks
  const at::Tensor w_NK = Random({24, k}, 1), h_KK = Hessian(k, 2000, 2);
  GptqOptions options;
  options.activation_order = false;
  options.rounds = 0;
  const auto format = IntFormat(4, k);  // One group: its scale does not change on the way
  const GptqResult result = Gptq(w_NK, h_KK, format, options);
  const at::Tensor want = Oracle(w_NK, h_KK, result.weight.scales.scale_RC, k, result.damping);
  const at::Tensor found = quant::Dequantize(result.weight).to(at::kDouble);
  // fp32 sums of some 300 terms move a weight by 1e-5 of a step: now and then one lies so near to
  // the middle of two codes that it goes the other way, and the columns behind it follow.
  const double equal = ((found - want).abs() < 1e-6).to(at::kDouble).mean().item<double>();
  EXPECT_GT(equal, 0.98);
  EXPECT_NEAR(OutputError(w_NK, found.to(at::kFloat), h_KK),
              OutputError(w_NK, want.to(at::kFloat), h_KK), 2e-4);
}

struct Case {
  const char* name;
  quant::WeightFormat format;
};

// Less error of the outputs than rounding to nearest, in each order, for each kind of format.
TEST(GptqTest, LosesLessOfTheOutputsThanRounding) {
  const at::Tensor w_NK = Random({64, 256}, 3), h_KK = Hessian(256, 2000, 4);
  for (const Case& c : {Case{"int4", IntFormat(4, 64)},
                        {"int4 asym", IntFormat(4, 64, false)},
                        {"int3", IntFormat(3, 32)},
                        {"int2", IntFormat(2, 64)},
                        {"rows", IntFormat(4, 0)},
                        {"fp8", quant::Fp8Rows()},
                        {"fp8 blocks", quant::Fp8Blocks(32, 128)},
                        {"nvfp4", quant::Nvfp4()},
                        {"mxfp4", quant::Mxfp4()}}) {
    for (const bool activation_order : {false, true}) {
      GptqOptions options;
      options.activation_order = activation_order;
      options.range.method = quant::RangeSearch::Method::kMse;
      const at::Tensor rounded = quant::FakeQuantize(w_NK, c.format, options.range);
      const GptqResult result = Gptq(w_NK, h_KK, c.format, options);
      EXPECT_LT(OutputError(w_NK, quant::Dequantize(result.weight), h_KK),
                0.8 * OutputError(w_NK, rounded, h_KK))
          << c.name << ", activation order " << activation_order;
      EXPECT_EQ(result.fallback, "");
      EXPECT_EQ(result.damping, options.damping);
    }
  }
}

// Each round leaves less error of the outputs than the one before, in every format.
TEST(GptqTest, RoundsLoseLess) {
  const at::Tensor w_NK = Random({64, 256}, 12), h_KK = Hessian(256, 2000, 13);
  for (const Case& c : {Case{"int4", IntFormat(4, 64)},
                        {"int3 asym", IntFormat(3, 64, false)},
                        {"int2", IntFormat(2, 64)},
                        {"nvfp4", quant::Nvfp4()}}) {
    double before = 1;
    for (const int rounds : {0, 1, 3}) {
      GptqOptions options;
      options.rounds = rounds;
      options.range.method = quant::RangeSearch::Method::kMse;
      const double error =
          OutputError(w_NK, quant::Dequantize(Gptq(w_NK, h_KK, c.format, options).weight), h_KK);
      EXPECT_LT(error, before) << c.name << ", rounds " << rounds;
      before = error;
    }
  }
}

// Values of a grid whose scales are off by a fiftieth: with its codes the least error is 0, at its
// own scales, for groups of rows that do not depend on each other.
TEST(GptqTest, RefinementFindsTheScalesOfTheCodes) {
  quant::WeightFormat format = IntFormat(4, 32);
  format.scale_dtype = quant::ScaleDtype::kF32;
  quant::QuantizedWeight weight = quant::Quantize(Random({16, 128}, 12), format);
  const at::Tensor w_NK = quant::Dequantize(weight), want_NG = weight.scales.scale_RC.clone();
  weight.scales.scale_RC = (want_NG * 1.02f).contiguous();
  Refine(w_NK, Hessian(128, 500, 13), /*rounds=*/1, &weight);
  // The ridge of the equations, 1e-6 of their diagonal, times what is to be mended, by the
  // condition of the Hessian.
  EXPECT_LT((weight.scales.scale_RC / want_NG - 1).abs().max().item<float>(), 1e-4);
  EXPECT_LT((quant::Dequantize(weight) / w_NK - 1).nan_to_num(0).abs().max().item<float>(), 1e-4);
}

TEST(GptqTest, DeadColumnsBecomeZero) {
  const at::Tensor w_NK = Random({8, 64}, 5);
  at::Tensor h_KK = Hessian(64, 500, 6);
  for (const int64_t dead : {0, 17}) {
    h_KK.select(0, dead).zero_();
    h_KK.select(1, dead).zero_();
  }
  const GptqResult result = Gptq(w_NK, h_KK, IntFormat(4, 32), {});
  EXPECT_EQ(result.dead_columns, 2);
  const at::Tensor value = quant::Dequantize(result.weight);
  EXPECT_EQ(value.select(1, 17).abs().max().item<float>(), 0);
  EXPECT_GT(value.select(1, 18).abs().max().item<float>(), 0);
}

// Fewer tokens than columns leave a Hessian without full rank; the damping makes it definite.
TEST(GptqTest, FewTokensNeedNoMoreThanDamping) {
  const GptqResult result = Gptq(Random({8, 128}, 7), Hessian(128, 20, 8), IntFormat(4, 32), {});
  EXPECT_EQ(result.fallback, "");
}

TEST(GptqTest, DampingGrowsUntilTheHessianIsDefinite) {
  at::Tensor h_KK = Hessian(64, 500, 9);
  // An eigenvalue below 0 by more than 1 % of the mean of the diagonal.
  const double mean = h_KK.diagonal().mean().item<double>();
  const auto [values, vectors] = at::linalg_eigh(h_KK);
  const at::Tensor v = vectors.select(1, 0);
  h_KK.sub_(v.unsqueeze(1) * v.unsqueeze(0) * (values[0].item<double>() + 0.05 * mean));
  const GptqResult result = Gptq(Random({8, 64}, 10), h_KK, IntFormat(4, 32), {});
  EXPECT_EQ(result.fallback, "");
  EXPECT_GT(result.damping, 0.05);
  EXPECT_LE(result.damping, 0.16);
}

TEST(GptqTest, FallsBackToRoundingAndSaysWhy) {
  at::Tensor h_KK = at::eye(64);
  h_KK[0][1] = h_KK[1][0] = 50.0f;
  const at::Tensor w_NK = Random({8, 64}, 11);
  const GptqResult result = Gptq(w_NK, h_KK, IntFormat(4, 32), {});
  EXPECT_NE(result.fallback.find("not positive definite"), std::string::npos);
  EXPECT_TRUE(
      at::equal(quant::Dequantize(result.weight), quant::FakeQuantize(w_NK, IntFormat(4, 32))));
}

}  // namespace
}  // namespace tern::ptq
