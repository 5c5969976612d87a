// Fake quantizers in libtorch's operations beside the CPU's loops, both on the CPU: the same values
// (zeros may have the other sign, which at::equal does not see), gradients' masks and errors.
#include "quant/device_neutral_formats.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "kernels/round_inputs/round_inputs.h"
#include "quant/hadamard.h"
#include "quant/ternary.h"
#include "quant/torch_parallel.h"

namespace tern::quant {
namespace {

struct NamedFormat {
  const char* name;
  WeightFormat format;
};
void PrintTo(const NamedFormat& f, std::ostream* out) { *out << f.name; }

class NeutralFormatTest : public ::testing::TestWithParam<NamedFormat> {
 protected:
  const WeightFormat& format() const { return GetParam().format; }

  // Blocks of zeros, of the least and of large numbers; rows and columns that do not divide.
  static std::vector<at::Tensor> Matrices() {
    at::manual_seed(11);
    std::vector<at::Tensor> all;
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 64}, {67, 192}, {130, 384}}) {
      at::Tensor w_NK = at::randn({n, k}) * 0.02;
      w_NK[0].narrow(0, 0, 64).zero_();
      w_NK[n - 1].narrow(0, 0, 16).mul_(1e-30);
      w_NK[n / 2].narrow(0, 16, 32).mul_(300);
      w_NK[n / 2].narrow(0, 48, 16).abs_();  // With zero points: 0 stays within
      all.push_back(w_NK);
    }
    return all;
  }
};

INSTANTIATE_TEST_SUITE_P(
    All, NeutralFormatTest,
    ::testing::Values(NamedFormat{"int2", IntFormat(2, 64)}, NamedFormat{"int3", IntFormat(3, 64)},
                      NamedFormat{"int4_fp16", IntFormat(4, 32, true, ScaleDtype::kF16)},
                      NamedFormat{"int4_zero", IntFormat(4, 64, false)},
                      NamedFormat{"int8_rows", IntFormat(8, 0)},
                      NamedFormat{"int2_zero", IntFormat(2, 0, false)},
                      NamedFormat{"int8_tensor", {Element::kInt, 8, true, 0, 0, ScaleDtype::kF32}},
                      NamedFormat{"fp8_rows", Fp8Rows()},
                      NamedFormat{"fp8_blocks", Fp8Blocks(48, 80)},
                      NamedFormat{"fp8_tensor", Fp8Tensor()},
                      NamedFormat{"e5m2_blocks", Fp8Blocks(128, 128, Element::kE5m2)},
                      NamedFormat{"nvfp4", Nvfp4()}, NamedFormat{"mxfp4", Mxfp4()},
                      NamedFormat{"q4_0", GgufFormat(4)}),
    [](const auto& info) { return std::string(info.param.name); });

void ExpectEqual(const at::Tensor& found, const at::Tensor& want) {
  ASSERT_EQ(found.defined(), want.defined());
  if (!want.defined()) return;
  ASSERT_EQ(found.scalar_type(), want.scalar_type());
  ASSERT_EQ(found.sizes(), want.sizes());
  EXPECT_TRUE(at::equal(found, want)) << found.sizes();
}

TEST_P(NeutralFormatTest, ScalesValuesAndMasksAreTheCpus) {
  for (const at::Tensor& w_NK : Matrices()) {
    const BlockScales want = FindScales(w_NK, format());
    const BlockScales found = neutral::FindScales(w_NK, format(), {});
    EXPECT_EQ(found.global, want.global);
    ExpectEqual(found.scale_RC, want.scale_RC);
    ExpectEqual(found.zero_RC, want.zero_RC);
    at::Tensor inside, want_inside;
    ExpectEqual(neutral::FakeQuantizeWith(w_NK, format(), want, nullptr, &inside),
                FakeQuantizeWith(w_NK, format(), want, &want_inside));
    ExpectEqual(inside, want_inside);
    // Scales that clip, as those of another matrix do.
    BlockScales narrow = want;
    narrow.scale_RC = RoundScales(format().scale_dtype, want.scale_RC * 0.3);
    ExpectEqual(neutral::FakeQuantizeWith(w_NK, format(), narrow, nullptr, &inside),
                FakeQuantizeWith(w_NK, format(), narrow, &want_inside));
    ExpectEqual(inside, want_inside);
  }
}

TEST_P(NeutralFormatTest, StochasticRoundingTakesTheSameNumbers) {
  // `first` beyond 32 bits, so that both words of the counter count.
  const Noise noise{RandomStream(3, "noise"), (uint64_t{1} << 32) - 100};
  for (const at::Tensor& w_NK : Matrices()) {
    const BlockScales scales = FindScales(w_NK, format());
    ExpectEqual(neutral::FakeQuantizeWith(w_NK, format(), scales, &noise, nullptr),
                FakeQuantizeStochastic(w_NK, format(), noise));
  }
}

TEST_P(NeutralFormatTest, SharedRangesAndErrorsAreTheCpus) {
  const at::Tensor w_NK = at::randn({64, 128});
  if (format().HasTensorScale()) {
    RangeSearch range;
    range.amax = 7.5f;
    const BlockScales want = FindScales(w_NK, format(), range);
    const BlockScales found = neutral::FindScales(w_NK, format(), range);
    EXPECT_EQ(found.global, want.global);
    ExpectEqual(found.scale_RC, want.scale_RC);
  }
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    at::Tensor broken_NK = w_NK.clone();
    broken_NK[63][127] = bad;
    EXPECT_THROW(neutral::FindScales(broken_NK, format(), {}), NumericError);
    EXPECT_THROW(neutral::MaxAbs(broken_NK), NumericError);
  }
}

TEST(NeutralScalesTest, WhatNoTypeHoldsIsTheCpusError) {
  const at::Tensor large = at::full({2, 3}, 1e6f);
  EXPECT_THROW(neutral::RoundScales(ScaleDtype::kF16, large), NumericError);
  EXPECT_THROW(RoundScales(ScaleDtype::kF16, large), NumericError);
  // Also what lies below, on and above the types' least numbers and between their steps.
  const at::Tensor scale = at::cat({at::logspace(-45, 4, 500), at::tensor({0.0f, 1.0f, 0.75f})});
  for (const ScaleDtype dtype : {ScaleDtype::kF32, ScaleDtype::kBf16, ScaleDtype::kF16,
                                 ScaleDtype::kE4m3, ScaleDtype::kE8m0})
    ExpectEqual(neutral::RoundScales(dtype, scale), RoundScales(dtype, scale));
}

TEST(NeutralTernaryTest, StochasticRoundingIsTheCpus) {
  const at::Tensor w_NK = at::randn({33, 129});
  const Noise noise{RandomStream(5, "ternary"), 17};
  const float beta = QuantizeTernary(w_NK).beta;
  ExpectEqual(neutral::FakeTernaryStochastic(w_NK, beta, noise),
              FakeTernaryStochastic(w_NK, noise));
}

// Rows of zeros, with NaN and with infinities beside plain ones. NaN equals nothing: it is compared
// by its place.
at::Tensor Inputs(int64_t k) {
  at::manual_seed(2);
  at::Tensor x_MK = at::randn({6, k});
  x_MK[1].zero_();
  x_MK[2][k / 2] = std::numeric_limits<float>::quiet_NaN();
  x_MK[3][0] = -std::numeric_limits<float>::infinity();
  x_MK[4].mul_(1e-38);
  return x_MK;
}

void ExpectSameWithNan(const at::Tensor& found, const at::Tensor& want) {
  ExpectEqual(found.isnan(), want.isnan());
  ExpectEqual(found.nan_to_num(0), want.nan_to_num(0));
}

TEST(NeutralInputsTest, Int4CodesScalesAndSumsAreTheCpus) {
  for (const int64_t k : {1, 7, 128, 1000}) {
    for (const Int4Scale scale : {Int4Scale::kAbsmean, Int4Scale::kAbsmax}) {
      const Int8Rows want = QuantizeRowsInt4(Inputs(k), scale);
      const Int8Rows found = neutral::QuantizeRowsInt4(Inputs(k), scale);
      ExpectEqual(found.q_MK, want.q_MK);
      ExpectSameWithNan(found.gamma_M, want.gamma_M);
      ExpectEqual(found.sum_M, want.sum_M);
      EXPECT_EQ(found.k, want.k);
      EXPECT_EQ(found.top, want.top);
    }
  }
}

TEST(NeutralInputsTest, RotationsAreTheCpus) {
  for (const int64_t k : {1, 7, 96, 512, 576}) {
    const at::Tensor x_MK = at::randn({5, k});
    ExpectEqual(neutral::Hadamard(x_MK), Hadamard(x_MK));
  }
}

TEST(NeutralInputsTest, RoundedInputsAreTheCpus) {
  for (const int64_t k : {1, 7, 128, 1000}) {
    for (const bool fp8 : {false, true}) {
      const at::Tensor x_MK = Inputs(k), want_MK = at::empty_like(x_MK);
      kernels::RoundInputsArgs args;
      args.x = x_MK.const_data_ptr<float>();
      args.out = want_MK.mutable_data_ptr<float>();
      args.m = x_MK.size(0);
      args.k = k;
      args.fp8 = fp8;
      kernels::RoundInputs(args, TorchParallel());
      ExpectSameWithNan(neutral::RoundInputs(x_MK, fp8), want_MK);
    }
  }
}

}  // namespace
}  // namespace tern::quant
