// FloatGemm: every code and instruction set gives the oracle's bits, however rows are cut and
// tokens are grouped; the oracle decodes with the readers' decoders (src/formats, held to ggml's
// own numbers there).
#include "kernels/float_gemm/float_gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "base/error.h"
#include "formats/block_codec.h"
#include "formats/half.h"
#include "kernels/float_gemm/float_gemm_impl.h"
#include "kernels/fp8/fp8.h"
#include "tests/kernels/isa_test_util.h"

namespace tern::kernels {
namespace {

using formats::GgmlType;

struct CodeCase {
  FloatCode code;
  GgmlType type;
  std::vector<int> halves;  // Offsets of the fp16 numbers of a block
};

std::vector<CodeCase> Cases() {
  return {{FloatCode::kF32, GgmlType::kF32, {}},
          {FloatCode::kF16, GgmlType::kF16, {}},
          {FloatCode::kBf16, GgmlType::kBf16, {}},
          {FloatCode::kQ8_0, GgmlType::kQ8_0, {0}},
          {FloatCode::kRows, GgmlType::kQ5_1, {0, 2}}};
}

// A problem on random blocks; its oracle result is in `want`.
struct Problem {
  Problem(const CodeCase& c, int64_t m, int64_t n, int64_t k, int64_t head_dim = 0) {
    const formats::GgmlTypeInfo& info = formats::InfoOf(c.type);
    const int64_t row_bytes = formats::RowBytes(c.type, k);
    bytes.resize(static_cast<size_t>(n * row_bytes));
    std::mt19937 random(static_cast<uint32_t>(m * 31 + n * 7 + k));
    const std::vector<float> values = RandomFloats(n * k + n, 3, 0.1f);
    for (int64_t at = 0; at < n * row_bytes; at += info.block_bytes) {
      uint8_t* block = bytes.data() + at;
      if (info.block_weights == 1) {
        formats::EncodeRow(c.type, &values[static_cast<size_t>(at / info.block_bytes)], 1, block);
        continue;
      }
      for (int64_t i = 0; i < info.block_bytes; ++i) block[i] = static_cast<uint8_t>(random());
      for (const int offset : c.halves) {
        const uint16_t half = formats::Fp32ToFp16(values[static_cast<size_t>(at) % values.size()]);
        std::memcpy(block + offset, &half, sizeof half);
      }
    }
    x = RandomFloats(m * (k + 3), 5);
    y.assign(static_cast<size_t>(m * (n + 2)), -7.0f);
    args.code = c.code;
    args.w = bytes.data();
    args.row_bytes = row_bytes;
    args.paired_head_dim = head_dim;
    args.decode_row = [this, type = c.type, row_bytes, k](int64_t row, float* out) {
      formats::DecodeRow(type, bytes.data() + row * row_bytes, k, out);
    };
    args.x = x.data();
    args.y = y.data();
    args.m = m;
    args.n = n;
    args.k = k;
    args.ldx = k + 3;
    args.ldy = n + 2;
    FloatGemmRef(args, 0, n, nullptr);
    want = y;
  }

  std::vector<uint8_t> bytes;
  std::vector<float> x, y, want;
  FloatGemmArgs args;
};

void ExpectOracle(Problem& problem, const char* what) {
  ExpectSameBits(
      [&](const ParallelFor& cut) { FloatGemm(problem.args, cut); }, problem.y, problem.want,
      StrCat(what, ", m ", problem.args.m, ", n ", problem.args.n, ", k ", problem.args.k));
}

TEST(FloatGemm, EveryCodeGivesTheOraclesBitsOnEveryInstructionSet) {
  for (const CodeCase& c : Cases()) {
    const int64_t block = formats::InfoOf(c.type).block_weights;
    for (const int64_t m : {1, 2, 3, 4, 5, 7, 13}) {
      for (const int64_t n : {1, 3, 4, 6, 9}) {
        Problem problem(c, m, n, block == 1 ? 48 : 2 * block);
        ExpectOracle(problem, formats::InfoOf(c.type).name.data());
      }
    }
  }
}

TEST(FloatGemm, RowsOfOneElementBlocksNeedNotBeWholeUnits) {
  for (const CodeCase& c : Cases()) {
    if (formats::InfoOf(c.type).block_weights != 1) continue;
    for (const int64_t k : {1, 2, 15, 16, 17, 31, 33}) {
      for (const int64_t m : {1, 5}) {
        Problem problem(c, m, 5, k);
        ExpectOracle(problem, formats::InfoOf(c.type).name.data());
      }
    }
  }
}

TEST(FloatGemm, NothingToDoTouchesNothing) {
  Problem problem(Cases()[3], 1, 1, 32);
  problem.y = problem.want;
  problem.args.m = 0;
  FloatGemm(problem.args, SerialFor);
  problem.args.m = 1;
  problem.args.n = 0;
  FloatGemm(problem.args, SerialFor);
  EXPECT_TRUE(SameBits(problem.y, problem.want));
}

TEST(FloatGemm, PairedRowsLandInTheModelsOrder) {
  // Two heads of four rows in the file: 0 2 1 3 of each, so file row 1 is the model's row 2.
  Problem problem(Cases()[3], 1, 8, 64), paired(Cases()[3], 1, 8, 64, 4);
  const size_t places[8] = {0, 2, 1, 3, 4, 6, 5, 7};
  for (size_t row = 0; row < 8; ++row) EXPECT_EQ(paired.want[places[row]], problem.want[row]);
  ExpectOracle(paired, "paired");
}

// The sum of the header against fp64: 16 lanes of k / 16 fused steps and four joins round k / 16 +
// 4 times at most on the way of a term, each by half an ulp of a partial sum that is at most the
// sum of magnitudes.
TEST(FloatGemm, OracleIsTheDotProduct) {
  const int64_t k = 512;
  for (const CodeCase& c : Cases()) {
    Problem problem(c, 2, 3, k);
    std::vector<float> row(static_cast<size_t>(k));
    for (int64_t n = 0; n < 3; ++n) {
      problem.args.decode_row(n, row.data());
      for (int64_t m = 0; m < 2; ++m) {
        double sum = 0, size = 0;
        for (int64_t i = 0; i < k; ++i) {
          const double term = double{row[static_cast<size_t>(i)]} *
                              double{problem.x[static_cast<size_t>(m * (k + 3) + i)]};
          sum += term;
          size += std::fabs(term);
        }
        EXPECT_NEAR(double{problem.want[static_cast<size_t>(m * 5 + n)]}, sum,
                    (k / 16 + 4) * 0x1p-24 * size);
      }
    }
  }
}

// Codes whose scales lie elsewhere: random bytes (of FP8 no NaN), scales of blocks of rows'
// columns.
struct ScaledProblem {
  ScaledProblem(FloatCode code, int64_t m, int64_t n, int64_t k, int64_t block_k)
      : row_bytes(code == FloatCode::kInt4 ? (k + 1) / 2 : k), blocks((k + block_k - 1) / block_k) {
    std::mt19937 random(static_cast<uint32_t>(m * 31 + n * 7 + k + block_k));
    for (int64_t i = 0; i < n * row_bytes; ++i) {
      bytes.push_back(static_cast<uint8_t>(random()));
      if (code == FloatCode::kE4m3 && (bytes.back() & 127) == 127) bytes.back() = 126;
    }
    scales = RandomFloats(n * blocks, 4, 0.1f);
    x = RandomFloats(m * (k + 3), 5);
    y.assign(static_cast<size_t>(m * (n + 2)), -7.0f);
    args.code = code;
    args.w = bytes.data();
    args.row_bytes = row_bytes;
    args.block_k = block_k;
    args.block_scales = [this](int64_t row, float* scale, float* zero) {
      for (int64_t b = 0; b < blocks; ++b) scale[b] = Scale(row, b), zero[b] = Zero(row, b);
    };
    args.decode_row = [this, code, k, block_k](int64_t row, float* out) {
      const uint8_t* codes = bytes.data() + row * row_bytes;
      for (int64_t i = 0; i < k; ++i) {
        const float scale = Scale(row, i / block_k);
        if (code == FloatCode::kInt8)
          out[i] = static_cast<float>(static_cast<int8_t>(codes[i])) * scale;
        if (code == FloatCode::kE4m3) out[i] = E4M3ToFp32Ref(codes[i]) * scale;
        const int nibble = codes[i / 2] >> (i % 2 * 4) & 15;
        if (code == FloatCode::kInt4)
          out[i] = (static_cast<float>(nibble) - Zero(row, i / block_k)) * scale;
      }
    };
    args.x = x.data();
    args.y = y.data();
    args.m = m;
    args.n = n;
    args.k = k;
    args.ldx = k + 3;
    args.ldy = n + 2;
    FloatGemmRef(args, 0, n, nullptr);
    want = y;
  }
  float Scale(int64_t row, int64_t block) const {
    return scales[static_cast<size_t>(row * blocks + block)];
  }
  float Zero(int64_t row, int64_t block) const {
    return args.code == FloatCode::kInt4 ? static_cast<float>((row * 5 + block * 3) % 16) : 0.0f;
  }

  int64_t row_bytes, blocks;
  std::vector<uint8_t> bytes;
  std::vector<float> scales, x, y, want;
  FloatGemmArgs args;
};

TEST(FloatGemm, ScaledCodesGiveTheOraclesBits) {
  for (const FloatCode code : {FloatCode::kInt8, FloatCode::kE4m3, FloatCode::kInt4}) {
    for (const int64_t m : {1, 4, 5, 13}) {
      for (const int64_t n : {1, 4, 7}) {
        for (const auto& [k, block_k] : std::vector<std::pair<int64_t, int64_t>>{{1, 1},
                                                                                 {24, 24},
                                                                                 {64, 32},
                                                                                 {64, 64},
                                                                                 {80, 32},
                                                                                 {300, 128},
                                                                                 {300, 300},
                                                                                 {33, 64}}) {
          ScaledProblem problem(code, m, n, k, block_k);
          ExpectSameBits([&](const ParallelFor& cut) { FloatGemm(problem.args, cut); }, problem.y,
                         problem.want, StrCat("m ", m, ", n ", n, ", k ", k, " by ", block_k));
        }
      }
    }
  }
}

}  // namespace
}  // namespace tern::kernels
