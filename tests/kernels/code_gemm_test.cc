// CodeGemm: every type and instruction set gives the oracle's bits, however rows are cut and tokens
// are grouped; the oracle's parts are the weights that the readers' decoders give; its product is
// the dot product within the bound of 16-bit activations.
#include "kernels/code_gemm/code_gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "kernels/code_gemm/code_gemm_impl.h"
#include "kernels/code_gemm/split_codes.h"
#include "tests/kernels/code_cases.h"

namespace tern::kernels {
namespace {

using Problem = CodeProblem<CodeGemmArgs, QuantizeInt16Ref, CodeGemmRef, CodeGemm>;

TEST(CodeGemm, EveryTypeGivesTheOraclesBitsOnEveryInstructionSet) {
  for (const TypeCase& c : Cases()) {
    for (const int64_t m : {1, 2, 3, 4, 5, 8, 9, 14}) {
      for (const int64_t n : {1, 2, 3, 4, 7, 9}) {
        Problem problem(c, m, n, 512);
        problem.ExpectOracle(Name(c));
      }
    }
  }
}

TEST(CodeGemm, RowsOfSmallBlocksNeedNotBeWholeBlocksOf256) {
  for (const TypeCase& c : Cases()) {
    if (formats::InfoOf(c.ggml).block_weights != 32) continue;
    for (const int64_t k : {32, 64, 224, 288, 480}) {
      for (const int64_t m : {1, 5, 11}) {
        Problem problem(c, m, 5, k);
        problem.ExpectOracle(Name(c));
      }
    }
  }
}

TEST(CodeGemm, PairedRowsLandInTheModelsOrder) {
  Problem problem(Cases()[0], 1, 8, 64), paired(Cases()[0], 1, 8, 64, 4);
  const size_t places[8] = {0, 2, 1, 3, 4, 6, 5, 7};
  for (size_t row = 0; row < 8; ++row) EXPECT_EQ(paired.want[places[row]], problem.want[row]);
  paired.ExpectOracle("paired");
}

TEST(CodeGemm, NothingToDoTouchesNothing) {
  Problem problem(Cases()[0], 1, 1, 32);
  std::fill(problem.y.begin(), problem.y.end(), -7.0f);
  const std::vector<float> before = problem.y;
  problem.args.m = 0;
  CodeGemm(problem.args, SerialFor);
  problem.args.m = 1;
  problem.args.n = 0;
  CodeGemm(problem.args, SerialFor);
  EXPECT_TRUE(SameBits(problem.y, before));
}

// With a token's scale of 1, s code + t is the decoded weight but for roundings: the decoders round
// the product with the code and the sum, the parts round t: an ulp of the largest of the three.
TEST(CodeGemm, PartsAreTheDecodersWeights) {
  for (const TypeCase& c : Cases()) {
    const std::vector<uint8_t> row = RandomRows(c, 1, 512, 9);
    std::vector<float> weights(512);
    formats::DecodeRow(c.ggml, row.data(), 512, weights.data());
    for (int64_t b = 0; b < 2; ++b) {
      const CodeParts parts = TakeApart(c.type, row.data() + b * BytesOf256(c.type), 8, 1.0f);
      for (int64_t i = 0; i < 256; ++i) {
        const double s = parts.s[i / 16], t = parts.t[i / 16], code = parts.code[i];
        const double w = weights[static_cast<size_t>(b * 256 + i)];
        EXPECT_NEAR(s * code + t, w, 0x1p-23 * (std::fabs(s * code) + std::fabs(t))) << Name(c);
      }
    }
  }
}

// Activations are rounded by half a step of amax / 32639 at most, so a product is off by half a
// step times the sum of |w|; the fp32 sums of k / 64 + k / 256 + 4 roundings are 2^-24 of the sum
// of magnitudes each.
TEST(CodeGemm, OracleIsTheDotProduct) {
  const int64_t k = 1024, n = 3;
  for (const TypeCase& c : Cases()) {
    Problem problem(c, 1, n, k);
    std::vector<float> row(static_cast<size_t>(k));
    for (int64_t r = 0; r < n; ++r) {
      formats::DecodeRow(c.ggml, problem.bytes.data() + r * problem.args.row_bytes, k, row.data());
      double sum = 0, bound = 0;
      for (int64_t i = 0; i < k; ++i) {
        const double w = row[static_cast<size_t>(i)], x = problem.x[static_cast<size_t>(i)];
        const CodeParts parts = TakeApart(
            c.type,
            problem.bytes.data() + r * problem.args.row_bytes + i / 256 * BytesOf256(c.type), 8,
            1.0f);
        const double size = std::fabs(double{parts.s[i % 256 / 16]} * parts.code[i % 256]) +
                            std::fabs(double{parts.t[i % 256 / 16]});
        sum += w * x;
        bound += std::fabs(w) * 0.5 * double{problem.tokens[static_cast<size_t>(i / 256)].scale} +
                 size * std::fabs(x) * 0x1p-24 * (k / 64 + k / 256 + 8);
      }
      EXPECT_NEAR(double{problem.want[static_cast<size_t>(r)]}, sum, bound) << Name(c);
    }
  }
}

TEST(QuantizeInt16, EveryInstructionSetGivesTheOraclesBytes) {
  for (const int64_t k : {1, 15, 16, 100, 256, 257, 512, 700}) {
    for (const float size : {1.0f, 1e-30f, 1e-38f, 1e30f, 0.0f}) {
      std::vector<float> x = RandomFloats(3 * (k + 1), 7, size);
      x[0] = size;  // An amax of 1e-30: the smallest that is not zero
      std::vector<Int16Block> want(static_cast<size_t>(3 * Int16Blocks(k))), got(want.size());
      QuantizeInt16Ref(x.data(), 3, k, k + 1, want.data());
      ForEachIsa([&](Isa isa) {
        std::memset(static_cast<void*>(got.data()), 0x5A, got.size() * sizeof(Int16Block));
        QuantizeInt16(x.data(), 3, k, k + 1, got.data());
        for (size_t b = 0; b < want.size(); ++b) {
          EXPECT_EQ(std::memcmp(want[b].high, got[b].high, 256), 0) << ToString(isa) << " k " << k;
          EXPECT_EQ(std::memcmp(want[b].low, got[b].low, 256), 0) << ToString(isa) << " k " << k;
          EXPECT_EQ(std::memcmp(want[b].words, got[b].words, 512), 0) << ToString(isa);
          EXPECT_EQ(std::memcmp(want[b].sums, got[b].sums, 64), 0) << ToString(isa) << " k " << k;
          EXPECT_EQ(std::memcmp(want[b].paired_sums, got[b].paired_sums, 64), 0) << ToString(isa);
          EXPECT_EQ(std::memcmp(want[b].paired_high, got[b].paired_high, 256), 0) << ToString(isa);
          EXPECT_EQ(std::memcmp(want[b].paired_low, got[b].paired_low, 256), 0) << ToString(isa);
          EXPECT_EQ(want[b].scale, got[b].scale) << ToString(isa) << " k " << k;
        }
      });
    }
  }
}

TEST(QuantizeInt16, IntegersAreWithinHalfAStepAndTheirSumsExact) {
  const std::vector<float> x = RandomFloats(256, 11, 3.0f);
  Int16Block block;
  QuantizeInt16Ref(x.data(), 1, 256, 256, &block);
  for (int64_t s = 0; s < 16; ++s) {
    int32_t sum = 0;
    for (int64_t i = 16 * s; i < 16 * s + 16; ++i) {
      const int32_t q = 256 * block.high[i] + block.low[i];
      EXPECT_LE(std::abs(q), 32639);
      // Half a step, and the rounding of the factor and the product: 2^-23 of up to 32639.
      EXPECT_NEAR(double{x[static_cast<size_t>(i)]} / double{block.scale}, q, 0.5 + 0.01);
      sum += q;
    }
    EXPECT_EQ(block.sums[s], static_cast<float>(sum));
  }
}

// Apart, scale * code + shift are the values that the formats' decoder gives, bit for bit.
TEST(SplitCodesTest, GivesTheValuesOfTheDecoder) {
  std::vector<TypeCase> cases = Cases();
  cases.push_back({CodeType::kQ8_0, formats::GgmlType::kQ8_0, {0}});
  for (const TypeCase& c : cases) {
    SCOPED_TRACE(Name(c));
    const int64_t k = 3 * formats::InfoOf(c.ggml).block_weights, run = SplitRun(c.type);
    const std::vector<uint8_t> row = RandomRows(c, 1, k, 9);
    std::vector<float> want(static_cast<size_t>(k)), scales(static_cast<size_t>(k / run)),
        shifts(scales.size(), -7.0f);
    std::vector<int8_t> codes(want.size());
    formats::DecodeRow(c.ggml, row.data(), k, want.data());
    SplitCodes(c.type, row.data(), k, codes.data(), scales.data(),
               HasShifts(c.type) ? shifts.data() : nullptr);
    for (int64_t i = 0; i < k; ++i) {
      const auto at = static_cast<size_t>(i), part = static_cast<size_t>(i / run);
      const float product = scales[part] * static_cast<float>(codes[at]);
      ASSERT_EQ(HasShifts(c.type) ? product + shifts[part] : product, want[at]) << i;
    }
  }
}

}  // namespace
}  // namespace tern::kernels
