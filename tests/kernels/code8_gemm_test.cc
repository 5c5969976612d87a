// Code8Gemm: every type and instruction set gives the oracle's bits, however rows are cut and
// tokens are grouped; the oracle is the dot product of the decoders' weights with the rounded
// activations.
#include "kernels/code8_gemm/code8_gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstring>

#include "base/error.h"
#include "kernels/code8_gemm/code8_gemm_impl.h"
#include "kernels/code_gemm/code_gemm_impl.h"
#include "tests/kernels/code_cases.h"

namespace tern::kernels {
namespace {

std::vector<TypeCase> CasesWithQ8() {
  std::vector<TypeCase> cases = Cases();
  cases.push_back({CodeType::kQ8_0, formats::GgmlType::kQ8_0, {0}});
  return cases;
}

using Problem = CodeProblem<Code8GemmArgs, QuantizeInt8Ref, Code8GemmRef, Code8Gemm>;

TEST(Code8Gemm, EveryTypeGivesTheOraclesBitsOnEveryInstructionSet) {
  for (const TypeCase& c : CasesWithQ8()) {
    for (const int64_t m : {1, 2, 3, 4, 5, 8, 9}) {
      for (const int64_t n : {1, 2, 5, 9}) {
        for (const int64_t k : {256, 768}) {
          Problem problem(c, m, n, k);
          problem.ExpectOracle(Name(c));
        }
      }
    }
  }
}

TEST(Code8Gemm, RowsOfSmallBlocksNeedNotBeWholeBlocksOf256) {
  for (const TypeCase& c : CasesWithQ8()) {
    if (formats::InfoOf(c.ggml).block_weights != 32) continue;
    for (const int64_t k : {32, 64, 128, 160, 224, 288, 480}) {
      for (const int64_t m : {1, 5}) {
        Problem problem(c, m, 5, k);
        problem.ExpectOracle(Name(c));
      }
    }
  }
}

// Sums in 16 bits come nearest to their ends where all codes and all activations are the largest,
// of either sign.
TEST(Code8Gemm, LargestCodesAndActivationsDoNotOverflow) {
  const int64_t k = 512;
  for (const TypeCase& c : CasesWithQ8()) {
    for (const int byte : {0xFF, 0x80, 0x7F, 0x00}) {
      for (const float sign : {1.0f, -1.0f}) {
        std::vector<uint8_t> rows(static_cast<size_t>(formats::RowBytes(c.ggml, k)),
                                  static_cast<uint8_t>(byte));
        const auto size = static_cast<size_t>(formats::InfoOf(c.ggml).block_bytes);
        const uint16_t half = formats::Fp32ToFp16(0.5f);
        for (size_t at = 0; at < rows.size(); at += size) {
          for (const int offset : c.halves)
            std::memcpy(&rows[at + static_cast<size_t>(offset)], &half, sizeof half);
        }
        Problem problem(c, 1, 1, k, 0, rows, std::vector<float>(k, sign));
        problem.ExpectOracle(Name(c));
      }
    }
  }
}

TEST(Code8Gemm, PairedRowsLandInTheModelsOrder) {
  Problem problem(Cases()[0], 1, 8, 64), paired(Cases()[0], 1, 8, 64, 4);
  const size_t places[8] = {0, 2, 1, 3, 4, 6, 5, 7};
  for (size_t row = 0; row < 8; ++row) EXPECT_EQ(paired.want[places[row]], problem.want[row]);
  paired.ExpectOracle("paired");
}

TEST(Code8Gemm, NothingToDoTouchesNothing) {
  Problem problem(Cases()[0], 1, 1, 32);
  std::fill(problem.y.begin(), problem.y.end(), -7.0f);
  const std::vector<float> before = problem.y;
  problem.args.m = 0;
  Code8Gemm(problem.args, SerialFor);
  problem.args.m = 1;
  problem.args.n = 0;
  Code8Gemm(problem.args, SerialFor);
  EXPECT_TRUE(SameBits(problem.y, before));
}

// Integer sums are exact, so with the rounded activations only fp32 rounds: s, s scale, t,
// scaled_sum once each, a multiply-add or two for each of k / 256 blocks, and four levels of lanes,
// 2^-24 of magnitudes each; the decoders round a weight twice. Codes with a zero are bounded by
// |code - zero|
// <= |code| + zero, as TakeApart's t says.
TEST(Code8Gemm, OracleIsTheDotProduct) {
  const int64_t k = 1024, n = 3;
  for (const TypeCase& c : CasesWithQ8()) {
    Problem problem(c, 1, n, k);
    std::vector<float> row(static_cast<size_t>(k));
    for (int64_t r = 0; r < n; ++r) {
      const uint8_t* w = problem.bytes.data() + r * problem.args.row_bytes;
      formats::DecodeRow(c.ggml, w, k, row.data());
      double sum = 0, size = 0;
      for (int64_t b = 0; b < k / 256; ++b) {
        const CodeParts parts = TakeApart(c.type, w + b * BytesOf256(c.type), 8, 1.0f);
        const Int8Block& x = problem.tokens[static_cast<size_t>(b)];
        for (int64_t i = 0; i < 256; ++i) {
          const double q = double{x.scale[i / 32]} * x.natural[i];
          sum += double{row[static_cast<size_t>(256 * b + i)]} * q;
          size += (std::fabs(double{parts.s[i / 16]} * parts.code[i]) +
                   std::fabs(double{parts.t[i / 16]})) *
                  std::fabs(q);
        }
      }
      const double bound = size * 0x1p-24 * (2 * k / 256 + 4 + 4 + 2);
      EXPECT_NEAR(double{problem.want[static_cast<size_t>(r)]}, sum, bound) << Name(c);
    }
  }
}

TEST(QuantizeInt8, EveryInstructionSetGivesTheOraclesBlocks) {
  constexpr size_t kFields = offsetof(Int8Block, scaled_sum16) + sizeof(Int8Block::scaled_sum16);
  for (const int64_t k : {1, 15, 16, 31, 33, 100, 256, 257, 512, 700}) {
    for (const float size : {1.0f, 1e-30f, 1e-38f, 1e30f, 0.0f}) {
      std::vector<float> x = RandomFloats(3 * (k + 1), 7, size);
      x[0] = size;  // An amax of 1e-30: the smallest that is not zero
      std::vector<Int8Block> want(static_cast<size_t>(3 * Int8Blocks(k))), got(want.size());
      QuantizeInt8Ref(x.data(), 3, k, k + 1, want.data());
      ForEachIsa([&](Isa isa) {
        std::memset(static_cast<void*>(got.data()), 0x5A, got.size() * sizeof(Int8Block));
        QuantizeInt8(x.data(), 3, k, k + 1, got.data());
        for (size_t b = 0; b < want.size(); ++b) {
          EXPECT_EQ(std::memcmp(&want[b], &got[b], kFields), 0)
              << ToString(isa) << " k " << k << " block " << b;
        }
      });
    }
  }
}

TEST(QuantizeInt8, IntegersAreWithinHalfAStepAndTheirSumsExact) {
  const std::vector<float> x = RandomFloats(256, 11, 3.0f);
  Int8Block block;
  QuantizeInt8Ref(x.data(), 1, 256, 256, &block);
  for (int64_t j = 0; j < 8; ++j) {
    int sum = 0, largest = 0;
    for (int64_t i = 32 * j; i < 32 * j + 32; ++i) {
      const int q = block.natural[i];
      // Half a step, and the rounding of the factor and the product: 2^-23 of up to 127.
      EXPECT_NEAR(double{x[static_cast<size_t>(i)]} / double{block.scale[j]}, q, 0.5 + 0.0001);
      EXPECT_EQ(block.paired[PairedPlace(j, i % 32 / 16, i % 16)], q);
      sum += q;
      largest = std::max(largest, std::abs(q));
    }
    EXPECT_EQ(largest, 127);
    EXPECT_EQ(block.sum[j], static_cast<float>(sum));
    EXPECT_EQ(block.sum16[LaneOf16(2 * j)] + block.sum16[LaneOf16(2 * j + 1)],
              static_cast<float>(sum));
  }
}

}  // namespace
}  // namespace tern::kernels
