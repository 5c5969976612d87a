// The types of small codes and random rows of them, for the tests of code_gemm and code8_gemm.
#pragma once

#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "formats/block_codec.h"
#include "formats/half.h"
#include "kernels/code_gemm/code_gemm.h"
#include "kernels/code_gemm/int16_tokens.h"
#include "tests/kernels/isa_test_util.h"

namespace tern::kernels {

struct TypeCase {
  CodeType type;
  formats::GgmlType ggml;
  std::vector<int> halves;  // Offsets of the fp16 numbers of a block
};

// Every type but Q8_0, which code_gemm has not.
inline std::vector<TypeCase> Cases() {
  using formats::GgmlType;
  return {{CodeType::kQ4_0, GgmlType::kQ4_0, {0}},     {CodeType::kQ4_1, GgmlType::kQ4_1, {0, 2}},
          {CodeType::kQ5_0, GgmlType::kQ5_0, {0}},     {CodeType::kQ5_1, GgmlType::kQ5_1, {0, 2}},
          {CodeType::kQ2K, GgmlType::kQ2_K, {80, 82}}, {CodeType::kQ3K, GgmlType::kQ3_K, {108}},
          {CodeType::kQ4K, GgmlType::kQ4_K, {0, 2}},   {CodeType::kQ5K, GgmlType::kQ5_K, {0, 2}},
          {CodeType::kQ6K, GgmlType::kQ6_K, {208}}};
}

inline const char* Name(const TypeCase& c) { return formats::InfoOf(c.ggml).name.data(); }

// n rows of k weights: random bytes with fp16 numbers of about 0.1.
inline std::vector<uint8_t> RandomRows(const TypeCase& c, int64_t n, int64_t k, uint32_t seed) {
  const int64_t block_bytes = formats::InfoOf(c.ggml).block_bytes;
  std::vector<uint8_t> bytes(static_cast<size_t>(n * formats::RowBytes(c.ggml, k)));
  std::mt19937 random(seed);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  const std::vector<float> scales = RandomFloats(1024, seed, 0.1f);
  for (size_t at = 0; at < bytes.size(); at += static_cast<size_t>(block_bytes)) {
    for (const int offset : c.halves) {
      const uint16_t half = formats::Fp32ToFp16(scales[(at + static_cast<size_t>(offset)) % 1024]);
      std::memcpy(&bytes[at + static_cast<size_t>(offset)], &half, sizeof half);
    }
  }
  return bytes;
}

// A random product of codes and what its oracle gives. Quantize, OracleRows: the oracles; Product:
// what picks a version.
template <class Args, auto Quantize, auto OracleRows, auto Product>
struct CodeProblem {
  using Block = std::remove_cvref_t<decltype(*Args{}.x)>;

  CodeProblem(const TypeCase& c, int64_t m, int64_t n, int64_t k, int64_t head_dim = 0)
      : CodeProblem(c, m, n, k, head_dim,
                    RandomRows(c, n, k, static_cast<uint32_t>(m * 31 + n * 7 + k)),
                    RandomFloats(m * k, 5)) {}
  CodeProblem(const TypeCase& c, int64_t m, int64_t n, int64_t k, int64_t head_dim,
              std::vector<uint8_t> rows, std::vector<float> activations)
      : bytes(std::move(rows)),
        x(std::move(activations)),
        tokens(static_cast<size_t>(m * Int16Blocks(k))),  // Of both forms as many
        y(static_cast<size_t>(m * (n + 2)), -7.0f) {
    Quantize(x.data(), m, k, k, tokens.data());
    args.type = c.type;
    args.w = bytes.data();
    args.row_bytes = formats::RowBytes(c.ggml, k);
    args.paired_head_dim = head_dim;
    args.x = tokens.data();
    args.y = y.data();
    args.m = m;
    args.n = n;
    args.k = k;
    args.ldy = n + 2;
    OracleRows(args, 0, n);
    want = y;
  }
  void ExpectOracle(const char* what) {
    ExpectSameBits([&](const ParallelFor& cut) { Product(args, cut); }, y, want,
                   StrCat(what, ", m ", args.m, ", n ", args.n, ", k ", args.k));
  }

  std::vector<uint8_t> bytes;
  std::vector<float> x;
  std::vector<Block> tokens;
  std::vector<float> y, want;
  Args args;
};

}  // namespace tern::kernels
