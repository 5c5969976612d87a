// HQQ against its definition written group by group, and what it must keep to: no group worse than
// rounded to nearest, in every integer format.
#include "ptq/hqq.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "ptq/ledger.h"
#include "tests/ptq/tiny_source.h"

namespace tern::ptq {
namespace {

using quant::IntFormat;
using quant::QuantizedWeight;
using quant::RangeSearch;
using quant::WeightFormat;

// Heavy tails, as weights have them.
at::Tensor Weights(at::IntArrayRef shape, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  const at::Tensor x = at::randn(shape, generator);
  return (x * x.abs().sqrt() * 0.02).contiguous();
}

RangeSearch Searched() {
  RangeSearch range;
  range.method = RangeSearch::Method::kMse;
  return range;
}

// Sum of importance * squared error of each group, [N, G] fp64.
at::Tensor GroupErrors(const at::Tensor& w_NK, const QuantizedWeight& q,
                       const at::Tensor& importance_K) {
  at::Tensor e = (w_NK - quant::Dequantize(q)).to(at::kDouble).square();
  if (importance_K.defined()) e = e * importance_K;
  return e.view({w_NK.size(0), q.scales.scale_RC.size(1), -1}).sum(2);
}

struct Case {
  int bits;
  int64_t group;
  bool symmetric;
  quant::ScaleDtype scale = quant::ScaleDtype::kBf16;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.bits << " bits, groups of " << c.group << (c.symmetric ? "" : ", zero points");
}

class HqqFormatTest : public ::testing::TestWithParam<Case> {
 protected:
  WeightFormat Format() const {
    return IntFormat(GetParam().bits, GetParam().group, GetParam().symmetric, GetParam().scale);
  }
};

INSTANTIATE_TEST_SUITE_P(All, HqqFormatTest,
                         ::testing::Values(Case{2, 16, true}, Case{2, 64, true}, Case{2, 32, false},
                                           Case{3, 64, true}, Case{3, 96, false}, Case{4, 8, false},
                                           Case{4, 64, false}, Case{4, 64, true}, Case{4, 0, false},
                                           Case{4, 64, false, quant::ScaleDtype::kF16},
                                           Case{8, 0, true}));

TEST_P(HqqFormatTest, NoGroupIsWorseThanRounded) {
  for (const int64_t rows : {1, 7, 33, 34}) {
    // Of the last some 5: their errors are large enough to be shrunk, and the fit is no least
    // squares.
    const at::Tensor w_NK =
        Weights({rows, 192}, static_cast<uint64_t>(rows)) * (rows == 34 ? 250 : 1);
    const at::Tensor importance_K = Weights({192}, 9).abs();
    for (const at::Tensor& importance : {at::Tensor(), importance_K}) {
      for (const RangeSearch& range : {RangeSearch(), Searched()}) {
        const QuantizedWeight rounded = quant::Quantize(w_NK, Format(), range);
        const HqqResult result = Hqq(w_NK, rounded, range, importance);
        const at::Tensor before = GroupErrors(w_NK, rounded, importance),
                         after = GroupErrors(w_NK, result.weight, importance);
        // The choice is made with squares in fp32: two roundings of 2^-24 each a term.
        EXPECT_TRUE((after <= before * (1 + 1e-6)).all().item<bool>());
        EXPECT_EQ(result.groups, before.numel());
        at::Tensor moved = result.weight.scales.scale_RC != rounded.scales.scale_RC;
        if (rounded.scales.zero_RC.defined())
          moved = moved | (result.weight.scales.zero_RC != rounded.scales.zero_RC);
        EXPECT_EQ(result.improved, moved.sum().item<int64_t>());
        // Of 8 bits no better scale is left among those of bf16, mostly.
        if (rows == 33 && GetParam().bits < 8) {
          EXPECT_GT(result.improved, 0);
          EXPECT_LT(after.sum().item<double>(), before.sum().item<double>());
        }
        // Codes are those nearest to the weights, scales and zero points of their type.
        EXPECT_TRUE(at::equal(result.weight.codes_NK,
                              quant::QuantizeWith(w_NK, Format(), result.weight.scales).codes_NK));
      }
    }
  }
}

TEST_P(HqqFormatTest, DoesNotDependOnThreads) {
  const at::Tensor w_NK = Weights({101, 192}, 4);
  at::set_num_threads(1);
  const QuantizedWeight rounded = quant::Quantize(w_NK, Format(), Searched());
  const QuantizedWeight one = Hqq(w_NK, rounded, Searched(), {}).weight;
  at::set_num_threads(3);
  const QuantizedWeight three = Hqq(w_NK, rounded, Searched(), {}).weight;
  at::set_num_threads(1);
  EXPECT_TRUE(at::equal(one.codes_NK, three.codes_NK));
  EXPECT_TRUE(at::equal(one.scales.scale_RC, three.scales.scale_RC));
}

// Weights that lie on a grid which the whole range misses: the fit finds the grid, and no error is
// left.
TEST(HqqTest, FindsTheGridOfTheWeights) {
  const float s = 0x1p-7f;
  at::Tensor w_NK = at::empty({1, 64}, at::kFloat);
  for (int64_t i = 0; i < 64; ++i) w_NK[0][i] = static_cast<float>(i % 15 - 7) * s;
  for (const bool symmetric : {true, false}) {
    const WeightFormat format = IntFormat(4, 64, symmetric);
    const QuantizedWeight rounded = quant::Quantize(w_NK, format, {});
    ASSERT_GT(GroupErrors(w_NK, rounded, {}).item<double>(), 0);
    const HqqResult result = Hqq(w_NK, rounded, {}, {});
    EXPECT_TRUE(at::equal(quant::Dequantize(result.weight), w_NK)) << symmetric;
    EXPECT_EQ(result.weight.scales.scale_RC.item<float>(), s);
    EXPECT_EQ(result.improved, 1);
  }
}

// The definition for one symmetric group, in double but for the stored scale; returns the scale
// with the least squared error on the way.
float Oracle(const at::Tensor& w_S, const WeightFormat& format, float start, const HqqOptions& o) {
  const float* w = w_S.const_data_ptr<float>();
  const int64_t count = w_S.numel();
  const quant::Grid grid = format.grid();
  float scale = start, best = start;
  double least = INFINITY, size = INFINITY, beta = o.beta;
  for (int i = 0; i <= o.iterations; ++i, beta *= o.kappa) {
    double squares = 0, sizes = 0, qt = 0, qq = 0;
    for (int64_t j = 0; j < count; ++j) {
      const double q = quant::RoundToGrid(grid, w[j] / scale), e = w[j] - q * scale;
      squares += e * e;
      sizes += std::fabs(e);
      const double kept =
          std::max(std::fabs(e) - std::pow(std::fabs(e), o.lp_norm - 1) / beta, 0.0);
      qt += q * (w[j] - std::copysign(kept, e));
      qq += q * q;
    }
    if (squares < least) least = squares, best = scale;
    if (sizes >= size) break;
    size = sizes;
    const double next = qt / qq;
    if (next > 0 && next <= 2 * start)
      scale = quant::RoundScale(format.scale_dtype, static_cast<float>(next));
  }
  return best;
}

// Weights of some 5, whose errors are large enough for the shrinkage to matter.
TEST(HqqTest, IsTheDefinition) {
  const WeightFormat format = IntFormat(3, 0);
  const at::Tensor w_NK = Weights({200, 64}, 5) * 250;
  const QuantizedWeight rounded = quant::Quantize(w_NK, format, {});
  HqqOptions none;
  none.beta = 1e30;  // Shrinks nothing away: all errors count as rare large ones
  int64_t equal = 0, differ = 0;
  const HqqResult found = Hqq(w_NK, rounded, {}, {}), plain = Hqq(w_NK, rounded, {}, {}, none);
  for (int64_t row = 0; row < 200; ++row) {
    const float scale = found.weight.scales.scale_RC[row][0].item<float>();
    equal += scale == Oracle(w_NK[row], format, rounded.scales.scale_RC[row][0].item<float>(), {});
    differ += scale != plain.weight.scales.scale_RC[row][0].item<float>();
  }
  // fp32 errors now and then decide between two neighbouring scales of bf16.
  EXPECT_GE(equal, 190);
  EXPECT_GT(differ, 50);
}

TEST(HqqTest, ZeroGroupsStayZero) {
  at::Tensor w_NK = Weights({5, 128}, 6);
  w_NK.slice(1, 32, 64).zero_();
  w_NK[3].zero_();
  for (const bool symmetric : {true, false}) {
    const WeightFormat format = IntFormat(4, 32, symmetric);
    const HqqResult result = Hqq(w_NK, quant::Quantize(w_NK, format, Searched()), Searched(), {});
    const at::Tensor value = quant::Dequantize(result.weight);
    EXPECT_EQ(value.slice(1, 32, 64).abs().max().item<float>(), 0);
    EXPECT_EQ(value[3].abs().max().item<float>(), 0);
    EXPECT_TRUE(result.weight.scales.scale_RC.isfinite().all().item<bool>());
    EXPECT_TRUE((result.weight.scales.scale_RC > 0).all().item<bool>());
  }
}

// Columns without inputs weigh nothing, also where they fill a group.
TEST(HqqTest, UnusedColumnsWeighNothing) {
  const at::Tensor w_NK = Weights({8, 64}, 7);
  at::Tensor importance_K = at::ones({64});
  importance_K.slice(0, 32, 64).zero_();
  const WeightFormat format = IntFormat(4, 32, false);
  const QuantizedWeight rounded = quant::Quantize(w_NK, format, Searched());
  const HqqResult result = Hqq(w_NK, rounded, Searched(), importance_K);
  EXPECT_TRUE(
      at::equal(result.weight.scales.scale_RC.select(1, 1), rounded.scales.scale_RC.select(1, 1)));
  EXPECT_GT(result.improved, 0);
}

TEST(HqqTest, InfinitiesAreRefused) {
  at::Tensor w_NK = Weights({4, 64}, 8);
  const QuantizedWeight rounded = quant::Quantize(w_NK, IntFormat(4, 32), {});
  for (const float bad : {INFINITY, -INFINITY, NAN}) {
    at::Tensor broken = w_NK.clone();
    broken[2][40] = bad;
    EXPECT_THROW(Hqq(broken, rounded, {}, {}), NumericError);
  }
}

class HqqModelTest : public ::testing::Test {
 protected:
  HqqModelTest() { WriteTinySource(folder_); }
  QuantizeOptions Options(const std::string& to, const std::string& name) {
    QuantizeOptions options = TinyOptions(folder_, to, name);
    options.method = "hqq";
    return options;
  }
  testing::TempFolder folder_;
};

TEST_F(HqqModelTest, EveryFormatOfIntegersWithAndWithoutCalibration) {
  for (const char* to : {"int4", "int4_asym", "w3", "w2", "w8", "int8"}) {
    for (const bool calibrated : {false, true}) {
      QuantizeOptions options = Options(to, StrCat(to, calibrated));
      if (calibrated) options.calibration = folder_ / "text.idx";
      const QuantizeReport report = QuantizeModel(options);
      EXPECT_EQ(report.fallbacks, 0) << to;
      if (!calibrated) {
        EXPECT_LE(report.error, report.error_rtn) << to;
        EXPECT_EQ(report.error < report.error_rtn, StrCat(to).find('8') == std::string::npos) << to;
      }
      for (const nlohmann::json& line : ReadLedger(LedgerPath(options.output)).matrices) {
        EXPECT_EQ(line["method"], "hqq");
        EXPECT_GE(line["groups"], line["groups_improved"]);
        EXPECT_GT(line["groups"], 0);
      }
    }
  }
}

TEST_F(HqqModelTest, FloatsAreRefused) {
  for (const char* to : {"fp8", "fp8_block", "nvfp4", "mxfp4", "q4_k_m"}) {
    EXPECT_THROW(QuantizeModel(Options(to, "refused")), UsageError) << to;
  }
}

TEST_F(HqqModelTest, GoesOnWhereItWasCut) {
  QuantizeOptions options = Options("int4_asym", "whole");
  QuantizeModel(options);
  struct Cut {};
  QuantizeOptions cut = Options("int4_asym", "cut");
  cut.progress = [](int64_t layer, int64_t) {
    if (layer == 1) throw Cut();
  };
  EXPECT_THROW(QuantizeModel(cut), Cut);
  cut.method = "rtn";
  EXPECT_THROW(QuantizeModel(cut), InputError);  // Another job
  cut.method = "hqq";
  cut.progress = nullptr;
  QuantizeModel(cut);
  EXPECT_EQ(ReadFile(cut.output + "/ledger.jsonl"), ReadFile(options.output + "/ledger.jsonl"));
}

}  // namespace
}  // namespace tern::ptq
