// Rows of tensors as GGUF stores them (docs/formats/block_codecs.md; layouts of ggml-common.h). A
// row is a whole number of blocks; an I2_S matrix has a tail after its rows and is coded as a whole
// (i2_s.h). The other ternary types take codes -1, 0, 1 with one d for the whole row;
// we always write d = 1 and keep the scale in a tensor of its own, because a fp16 d would not be
// the trained scale.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace tern::formats {

// Numbers of the file format.
enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kBf16 = 30,
  kTq1_0 = 34,
  kTq2_0 = 35,
  kI2_S = 36,  // Microsoft's fork only (i2_s.h); mainline's 36 is a removed type
};

struct GgmlTypeInfo {
  GgmlType type;
  std::string_view name;
  int64_t block_weights;
  int64_t block_bytes;
};

// Every type that tern reads or writes; nothing for other numbers.
std::optional<GgmlTypeInfo> FindGgmlType(uint32_t number);
// "F32, F16, Q4_0, ...": the types of weights that can be read, for messages.
std::string WeightTypeNames();
// REQUIRES: a type of FindGgmlType.
const GgmlTypeInfo& InfoOf(GgmlType type);
// Bytes of a row of k elements. Throws FormatError when k is no multiple of the block.
int64_t RowBytes(GgmlType type, int64_t k);
// Bytes between the last row of a tensor and its end: 32 of I2_S, 0 of the others.
int64_t TailBytes(GgmlType type);

// fp32 rows: F32, F16, BF16 (round to nearest even), Q8_0 (d = amax/127 as fp16, q = x/d rounded
// half away from zero), TQ1_0 and TQ2_0 (d = amax as fp16: only right for rows that are ternary
// already; the exporters use EncodeTernaryRow), and Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K.
// Byte-equal to ggml's reference quantizers. Throws FormatError for a type that has no float
// encoder, InputError when a block type meets NaN, Inf or a scale that fp16 cannot hold.
// importance[k]: mean square of the inputs of each column, as llama.cpp's importance matrix, for
// the types of 2 to 6 bits; null: none.
void EncodeRow(GgmlType type, const float* x, int64_t k, uint8_t* out,
               const float* importance = nullptr);
// Q4_0 and Q8_0 from codes (-8 to 7, -128 to 127) and the value of d of each 32, which fp16 holds.
// REQUIRES: Q4_0 or Q8_0, k a multiple of 32.
void EncodeCodes(GgmlType type, const int8_t* codes, const float* d, int64_t k, uint8_t* out);
// The same types, bit-equal to ggml's decoders. Any bytes are a valid row. Throws FormatError for a
// type that is not read as floats.
void DecodeRow(GgmlType type, const uint8_t* row, int64_t k, float* out);
bool IsReadAsFloats(GgmlType type);
// Index of an element of the first block whose weights are not all finite, k when there is none.
// Looks at the blocks' scales only: they are finite exactly when the weights are. Throws as
// DecodeRow.
int64_t FindNonFinite(GgmlType type, const uint8_t* row, int64_t k);

// TQ1_0 and TQ2_0 from codes -1, 0, 1, d = 1 in every block. REQUIRES: TQ1_0 or TQ2_0.
void EncodeTernaryRow(GgmlType type, const int8_t* codes, int64_t k, uint8_t* out);
// Codes and the d of a row. Throws FormatError when the blocks have different d, or a code is none
// of -1, 0, 1. REQUIRES: TQ1_0 or TQ2_0.
float DecodeTernaryRow(GgmlType type, const uint8_t* row, int64_t k, int8_t* codes);
// The same of a TQ2_0 row with its codes as they are packed there: planes[k / 4], the layout T2
// (kernels/ternary_pack/t2.h).
float CopyTq2Planes(const uint8_t* row, int64_t k, uint8_t* planes);

}  // namespace tern::formats
