// The types of small codes and random rows of them, for the tests of code_gemm and code8_gemm.
#pragma once

#include <cstring>
#include <vector>

#include "formats/block_codec.h"
#include "formats/half.h"
#include "kernels/code_gemm/code_gemm.h"
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

}  // namespace tern::kernels
