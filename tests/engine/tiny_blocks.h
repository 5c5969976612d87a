// Tiny models in the block types of GGUF: random blocks, and the values that they stand for.
#pragma once

#include <cstring>
#include <vector>

#include "base/error.h"
#include "tests/engine/tiny_files.h"

namespace tern::testing {

// Random bytes are valid blocks; only the fp16 numbers are chosen, so that weights are within 0.12.
// `largest` is the largest |weight| / d.
struct BlockType {
  formats::GgmlType type;
  size_t d_offset;
  float largest;
  size_t min_offset = 0;
  float min = 0;  // Of the _1 types and dmin: the fp16 number at min_offset, 0: there is none
};
constexpr BlockType kTypes[] = {
    {formats::GgmlType::kQ4_0, 0, 8},
    {formats::GgmlType::kQ4_1, 0, 15, 2, -0.06f},
    {formats::GgmlType::kQ5_0, 0, 16},
    {formats::GgmlType::kQ5_1, 0, 31, 2, -0.06f},
    {formats::GgmlType::kQ8_0, 0, 128},
    {formats::GgmlType::kQ2_K, 80, 15 * 3, 82, 0.06f / 15},
    {formats::GgmlType::kQ3_K, 108, 32 * 4},
    {formats::GgmlType::kQ4_K, 0, 63 * 15, 2, 0.06f / 63},
    {formats::GgmlType::kQ5_K, 0, 63 * 31, 2, 0.06f / 63},
    {formats::GgmlType::kQ6_K, 208, 128 * 32},
    {formats::GgmlType::kF16, 0, 1},
    {formats::GgmlType::kBf16, 0, 1},
};

inline const BlockType& TypeOf(formats::GgmlType type) {
  for (const BlockType& entry : kTypes) {
    if (entry.type == type) return entry;
  }
  throw BugError("no such type");
}

inline std::vector<formats::GgmlType> Types() {
  std::vector<formats::GgmlType> types;
  for (const BlockType& entry : kTypes) types.push_back(entry.type);
  return types;
}

inline void PutHalf(uint8_t* block, size_t at, float value) {
  const uint16_t bits = formats::Fp32ToFp16(value);
  std::memcpy(block + at, &bits, sizeof bits);
}

inline TinyBlockMatrix RandomBlocks(formats::GgmlType type, int64_t n, int64_t k,
                                    RandomStream& random) {
  const BlockType& entry = TypeOf(type);
  const formats::GgmlTypeInfo& info = formats::InfoOf(type);
  TinyBlockMatrix matrix{type,
                         std::vector<uint8_t>(static_cast<size_t>(n * formats::RowBytes(type, k)))};
  for (size_t at = 0; at < matrix.bytes.size(); at += static_cast<size_t>(info.block_bytes)) {
    uint8_t* block = matrix.bytes.data() + at;
    if (info.block_weights == 1) {
      const float value = 0.06f * random.NextNormal();
      formats::EncodeRow(type, &value, 1, block);
      continue;
    }
    for (int64_t i = 0; i < info.block_bytes; ++i)
      block[i] = static_cast<uint8_t>(random.NextU64() >> 32);
    PutHalf(block, entry.d_offset, (0.06f + 0.06f * random.NextUniform()) / entry.largest);
    if (entry.min != 0) PutHalf(block, entry.min_offset, entry.min);
  }
  return matrix;
}

inline std::vector<float> Decoded(const TinyBlockMatrix& matrix, int64_t n, int64_t k) {
  std::vector<float> values(static_cast<size_t>(n * k));
  for (int64_t row = 0; row < n; ++row) {
    formats::DecodeRow(matrix.type, matrix.bytes.data() + row * formats::RowBytes(matrix.type, k),
                       k, values.data() + row * k);
  }
  return values;
}

// Every matrix and table of the model as random blocks; model.floats gets their values.
inline TinyBlocks MakeBlocks(formats::GgmlType linear, formats::GgmlType table, TinyModel* model,
                             uint64_t seed) {
  RandomStream random(seed, "tiny blocks");
  TinyBlocks blocks;
  for (const ParameterSpec& spec : ParameterTable(model->config)) {
    if (spec.shape.size() != 2 || model->ternary.contains(spec.name)) continue;
    const formats::GgmlType type = spec.role == ParameterRole::kLinear ? linear : table;
    const int64_t n = spec.shape[0], k = spec.shape[1];
    blocks[spec.name] = RandomBlocks(type, n, k, random);
    model->floats[spec.name] = Decoded(blocks[spec.name], n, k);
  }
  return blocks;
}

}  // namespace tern::testing
