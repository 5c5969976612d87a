// Weight formats: grids against libtorch's and the kernels' casts, scales and codes against the
// definition written with tensor operations, and the properties that every format must have.
#include "quant/weight_quantizer.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "kernels/fp8/fp8.h"

namespace tern::quant {
namespace {

at::Tensor Random(at::IntArrayRef shape, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator) * 0.02;
}

struct NamedFormat {
  const char* name;
  WeightFormat format;
};
void PrintTo(const NamedFormat& f, std::ostream* out) { *out << f.name; }

class WeightFormatTest : public testing::TestWithParam<NamedFormat> {};

INSTANTIATE_TEST_SUITE_P(
    All, WeightFormatTest,
    testing::Values(NamedFormat{"int2", IntFormat(2, 64)}, NamedFormat{"int3", IntFormat(3, 64)},
                    NamedFormat{"int4", IntFormat(4, 64)},
                    NamedFormat{"int4_fp16", IntFormat(4, 32, true, ScaleDtype::kF16)},
                    NamedFormat{"int4_zero", IntFormat(4, 64, false)},
                    NamedFormat{"int8_rows", IntFormat(8, 0)},
                    NamedFormat{"int8_tensor", {Element::kInt, 8, true, 0, 0, ScaleDtype::kF32}},
                    NamedFormat{"fp8_rows", Fp8Rows()},
                    NamedFormat{"fp8_blocks", Fp8Blocks(48, 80)},
                    NamedFormat{"fp8_tensor", Fp8Tensor()},
                    NamedFormat{"fp8_e5m2_rows", Fp8Rows(Element::kE5m2)},
                    NamedFormat{"fp8_e5m2_blocks", Fp8Blocks(48, 80, Element::kE5m2)},
                    NamedFormat{"e5m2", {Element::kE5m2, 8, true, 0, 0, ScaleDtype::kF32}},
                    NamedFormat{"nvfp4", Nvfp4()}, NamedFormat{"mxfp4", Mxfp4()}),
    [](const auto& info) { return std::string(info.param.name); });

// What fake quantization trains with is what the file holds.
TEST_P(WeightFormatTest, FakeQuantizationIsTheFile) {
  const at::Tensor w_NK = Random({67, 192}, 1);
  for (const auto method : {RangeSearch::Method::kMinMax, RangeSearch::Method::kMse}) {
    RangeSearch range;
    range.method = method;
    const QuantizedWeight q = Quantize(w_NK, GetParam().format, range);
    const at::Tensor value_NK = Dequantize(q);
    EXPECT_TRUE(at::equal(value_NK, FakeQuantize(w_NK, GetParam().format, range)));
    // Values of the file are their own nearest codes: quantizing them again changes nothing.
    const QuantizedWeight again = QuantizeWith(value_NK, GetParam().format, q.scales);
    EXPECT_TRUE(at::equal(Dequantize(again), value_NK));
  }
}

TEST_P(WeightFormatTest, SearchIsNeverWorseThanMinMax) {
  const at::Tensor w_NK = Random({33, 192}, 2);
  RangeSearch mse;
  mse.method = RangeSearch::Method::kMse;
  const auto error = [&](const RangeSearch& range) {
    return (FakeQuantize(w_NK, GetParam().format, range) - w_NK).square().sum().item<double>();
  };
  const double base = error({}), searched = error(mse);
  EXPECT_LE(searched, base);
  mse.signed_scale = true;
  EXPECT_LE(error(mse), searched);
}

// Within a block that is not clipped, the error is at most half a step of the codes.
TEST_P(WeightFormatTest, ErrorIsAtMostTheGridsStep) {
  const at::Tensor w_NK = Random({67, 192}, 3);
  const WeightFormat& format = GetParam().format;
  at::Tensor inside_NK;
  const BlockScales scales = FindScales(w_NK, format);
  const at::Tensor value_NK = FakeQuantizeWith(w_NK, format, scales, &inside_NK);
  const int64_t rows = format.block_n == 0 ? 67 : format.block_n,
                columns = format.block_k == 0 ? 192 : format.block_k;
  const at::Tensor s_NK = EffectiveScales(scales)
                              .repeat_interleave(rows, 0)
                              .repeat_interleave(columns, 1)
                              .slice(0, 0, 67)
                              .slice(1, 0, 192);
  // Integers: steps of 1. Small floats: steps of 2^-fraction_bits relative, but for subnormals.
  const Grid grid = format.grid();
  at::Tensor step_NK = at::ones({67, 192});
  if (!grid.integer) {
    step_NK = at::exp2(at::floor(at::log2((w_NK / s_NK).abs().clamp_min(1e-30))))
                  .clamp_min(std::ldexp(1.0, grid.min_exponent)) /
              (1 << grid.fraction_bits);
  }
  // 1e-5: fp32 rounding of w / s and of the product, a few units in 2^-24 of up to 2^8 codes.
  const at::Tensor allowed = (0.5 + 1e-3) * step_NK * s_NK.abs();
  const at::Tensor bad = ((value_NK - w_NK).abs() > allowed).logical_and(inside_NK);
  EXPECT_EQ(bad.sum().item<int64_t>(), 0);
  EXPECT_GT(inside_NK.sum().item<int64_t>(), 67 * 192 * 8 / 10);
}

TEST_P(WeightFormatTest, ThreadsDoNotMatter) {
  const at::Tensor w_NK = Random({200, 192}, 4);
  at::set_num_threads(1);
  const QuantizedWeight one = Quantize(w_NK, GetParam().format);
  at::set_num_threads(2);
  const QuantizedWeight two = Quantize(w_NK, GetParam().format);
  EXPECT_TRUE(at::equal(one.codes_NK, two.codes_NK));
  EXPECT_TRUE(at::equal(one.scales.scale_RC, two.scales.scale_RC));
}

TEST_P(WeightFormatTest, RefusesWhatIsNotFinite) {
  for (const float bad : {NAN, INFINITY}) {
    at::Tensor w_NK = Random({8, 192}, 5);
    w_NK[3][100] = bad;
    EXPECT_THROW(Quantize(w_NK, GetParam().format), NumericError);
  }
}

TEST_P(WeightFormatTest, ZerosStayZeros) {
  const at::Tensor zeros = at::zeros({48, 192});
  EXPECT_TRUE(at::equal(FakeQuantize(zeros, GetParam().format), zeros));
}

// The definition with tensor operations, as compressed-tensors computes it in fp32.
TEST(WeightQuantizerTest, Int4FollowsTheDefinition) {
  const at::Tensor w_NK = Random({31, 128}, 6);
  const QuantizedWeight q = Quantize(w_NK, IntFormat(4, 32));
  const at::Tensor w_NGS = w_NK.view({31, 4, 32});
  const at::Tensor scale = (w_NGS.abs().amax(2) / 7.5).to(at::kBFloat16).to(at::kFloat);
  EXPECT_TRUE(at::equal(q.scales.scale_RC, scale));
  const at::Tensor codes = (w_NGS / scale.unsqueeze(2)).round().clamp(-8, 7);
  EXPECT_TRUE(at::equal(q.codes_NK, codes.view({31, 128}).to(at::kChar)));
  EXPECT_EQ(q.codes_NK.min().item<int>(), -8);
}

TEST(WeightQuantizerTest, ZeroPointsFollowTheDefinition) {
  const at::Tensor w_NK = Random({31, 128}, 7) + 0.01;
  const QuantizedWeight q = Quantize(w_NK, IntFormat(4, 64, false));
  const at::Tensor w_NGS = w_NK.view({31, 2, 64});
  const at::Tensor min = w_NGS.amin(2).clamp_max(0), max = w_NGS.amax(2).clamp_min(0);
  const at::Tensor scale = ((max - min) / 15).to(at::kBFloat16).to(at::kFloat);
  const at::Tensor zero = (-8 - min / scale).round().clamp(-8, 7);
  EXPECT_TRUE(at::equal(q.scales.scale_RC, scale));
  EXPECT_TRUE(at::equal(q.scales.zero_RC, zero));
  const at::Tensor codes = (w_NGS / scale.unsqueeze(2) + zero.unsqueeze(2)).round().clamp(-8, 7);
  EXPECT_TRUE(at::equal(q.codes_NK, codes.view({31, 128}).to(at::kChar)));
}

TEST(WeightQuantizerTest, Nvfp4FollowsTheDefinition) {
  const at::Tensor w_NK = Random({16, 64}, 8);
  const QuantizedWeight q = Quantize(w_NK, Nvfp4());
  const float global = 448.0f * 6.0f / w_NK.abs().max().item<float>();
  EXPECT_EQ(q.scales.global, global);
  const at::Tensor block =
      (w_NK.view({16, 4, 16}).abs().amax(2) / 6 * global).to(at::kFloat8_e4m3fn).to(at::kFloat);
  EXPECT_TRUE(at::equal(q.scales.scale_RC, block));
  // A range that fused layers share replaces the tensor's own.
  RangeSearch range;
  range.amax = 7.0f;
  EXPECT_EQ(Quantize(w_NK, Nvfp4(), range).scales.global, 448.0f * 6.0f / 7.0f);
}

TEST(WeightQuantizerTest, Fp8OfATensorFollowsTheDefinition) {
  const at::Tensor w_NK = Random({16, 64}, 8);
  const float amax = w_NK.abs().max().item<float>();
  EXPECT_EQ(MaxAbs(w_NK), amax);
  struct Type {
    Element element;
    at::ScalarType torch;
    float largest;
  };
  for (const Type& type : {Type{Element::kE4m3, at::kFloat8_e4m3fn, 448},
                           Type{Element::kE5m2, at::kFloat8_e5m2, 57344}}) {
    for (const float range_amax : {0.0f, 5 * amax}) {  // Its own range, and one of fused layers
      RangeSearch range;
      if (range_amax > 0) {
        range.amax = range_amax;
        range.method = RangeSearch::Method::kMse;  // Does not move what is shared
      }
      const at::Tensor scale = at::full({1, 1}, (range_amax > 0 ? range_amax : amax) / type.largest)
                                   .to(at::kBFloat16)
                                   .to(at::kFloat);
      const QuantizedWeight q = Quantize(w_NK, Fp8Tensor(type.element), range);
      EXPECT_TRUE(at::equal(q.scales.scale_RC, scale));
      const at::Tensor codes = (w_NK / scale).clamp(-type.largest, type.largest).to(type.torch);
      EXPECT_TRUE(at::equal(q.codes_NK, codes.view(at::kByte)));
      EXPECT_TRUE(at::equal(Dequantize(q), codes.to(at::kFloat) * scale));
    }
  }
}

TEST(WeightQuantizerTest, Mxfp4ScalesArePowersOfTwoThatClipNothing) {
  const at::Tensor w_NK = Random({16, 64}, 9);
  const QuantizedWeight q = Quantize(w_NK, Mxfp4());
  const at::Tensor exponent = q.scales.scale_RC.log2();
  EXPECT_TRUE(at::equal(exponent, exponent.round()));
  const at::Tensor amax = w_NK.view({16, 2, 32}).abs().amax(2);
  EXPECT_TRUE((amax <= q.scales.scale_RC * 6).all().item<bool>());
  EXPECT_TRUE((amax > q.scales.scale_RC * 3).all().item<bool>());
}

// Importance moves the range: with all weight on the small columns, the outlier is given up.
TEST(WeightQuantizerTest, ImportanceWeighsTheError) {
  at::Tensor w_NK = Random({4, 64}, 10), importance_K = at::ones({64});
  w_NK.select(1, 5).fill_(1.0f);
  importance_K[5] = 0.0f;
  RangeSearch mse;
  mse.method = RangeSearch::Method::kMse;
  const float with =
      FindScales(w_NK, IntFormat(3, 64), mse, importance_K).scale_RC.max().item<float>();
  const float without = FindScales(w_NK, IntFormat(3, 64), mse).scale_RC.max().item<float>();
  EXPECT_LT(with, without);
}

TEST(WeightQuantizerTest, GroupsMustDivideTheRow) {
  try {
    Quantize(Random({4, 576}, 11), IntFormat(4, 128));
    FAIL() << "rows of 576 do not divide by 128";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("groups that fit: 64, 32, 16"), std::string::npos)
        << error.what();
  }
}

TEST(WeightQuantizerTest, ScalesBeyondTheirTypeAreRefused) {
  const at::Tensor w_NK = at::full({2, 32}, 1e6f);
  EXPECT_THROW(Quantize(w_NK, IntFormat(4, 32, true, ScaleDtype::kF16)), NumericError);
  EXPECT_NO_THROW(Quantize(w_NK, IntFormat(4, 32, true, ScaleDtype::kBf16)));
}

TEST(WeightQuantizerTest, BitsOfStorage) {
  EXPECT_DOUBLE_EQ(IntFormat(4, 64).BitsPerWeight(8, 128), 4 + 16.0 / 64);
  EXPECT_DOUBLE_EQ(IntFormat(4, 64, false).BitsPerWeight(8, 128), 4 + 20.0 / 64);
  EXPECT_DOUBLE_EQ(Mxfp4().BitsPerWeight(8, 128), 4.25);
  EXPECT_DOUBLE_EQ(Nvfp4().BitsPerWeight(8, 128), 4.5 + 32.0 / 1024);
}

// Every pattern of fp32 exponents, both signs, around the ties.
TEST(GridTest, SmallFloatsAreThoseOfLibtorchAndTheKernels) {
  const at::Tensor x = at::cat({Random({20000}, 12) * 1e4, Random({20000}, 13) * 0.1,
                                Random({20000}, 14) * 1e-3, at::arange(-500, 500) * 0.0625});
  const float* values = x.const_data_ptr<float>();
  const at::Tensor e5m2 = x.to(at::kFloat8_e5m2).view(at::kByte);
  for (int64_t i = 0; i < x.numel(); ++i) {
    ASSERT_EQ(FloatBits(kE4m3Grid, RoundToGrid(kE4m3Grid, values[i])),
              kernels::Fp32ToE4M3Ref(values[i]))
        << values[i];
    ASSERT_EQ(FloatBits(kE5m2Grid, RoundToGrid(kE5m2Grid, values[i])), e5m2[i].item<uint8_t>())
        << values[i];
  }
}

TEST(GridTest, BitsAndValuesAreInverse) {
  for (const Grid& grid : {kE4m3Grid, kE5m2Grid, kE2m1Grid}) {
    const int codes = grid.hi == kE2m1Grid.hi ? 16 : 256;
    for (int code = 0; code < codes; ++code) {
      const float value = FloatOfBits(grid, static_cast<uint8_t>(code));
      if (std::fabs(value) > grid.hi) continue;  // NaN and Inf of the types
      EXPECT_EQ(FloatBits(grid, value), code);
      EXPECT_EQ(RoundToGrid(grid, value), value);
    }
  }
  const float fp4[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  for (int code = 0; code < 8; ++code)
    EXPECT_EQ(FloatOfBits(kE2m1Grid, static_cast<uint8_t>(code)), fp4[code]);
}

TEST(GridTest, TiesGoToEven) {
  EXPECT_EQ(RoundToGrid(kE2m1Grid, 2.5f), 2.0f);
  EXPECT_EQ(RoundToGrid(kE2m1Grid, 5.0f), 4.0f);
  EXPECT_EQ(RoundToGrid(kE2m1Grid, 0.25f), 0.0f);
  EXPECT_EQ(RoundToGrid(IntegerGrid(4), -2.5f), -2.0f);
  EXPECT_EQ(RoundToGrid(IntegerGrid(4), 99.0f), 7.0f);
}

}  // namespace
}  // namespace tern::quant
