// A matrix of small integers or FP8 numbers with scales, as compressed-tensors and the FP8 folders
// of Hugging Face keep it (docs/formats/compressed_tensors.md): codes, scales and zero points stay
// in the file's mapping, and one row is decoded to fp32 whenever it is used. Activations stay
// floats, unless what the folder asks of them is wanted.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/parallel.h"
#include "kernels/round_inputs/round_inputs.h"

namespace tern::engine {

enum class ScaledCode {
  kInt4,     // 8 in a little-endian 32-bit word, lowest bits first, stored as q + 8
  kInt8,     // Two's complement
  kFp8E4m3,  // kernels/fp8
};

enum class ScaleType { kF32, kF16, kBf16 };

// What a folder asks of a matrix's inputs. Done with CodeActivations::kFolder only.
struct InputRounding {
  enum class Code {
    kNone,
    kInt8,  // Symmetric
    kFp8E4m3,
    kOther,  // What is not done here
  };
  Code code = Code::kNone;
  int64_t group = 0;  // Columns of a token that share a scale; 0: all
  float scale = 0;    // Above 0: of all tokens, the file's
  friend bool operator==(const InputRounding&, const InputRounding&) = default;
};

// The arguments of kernels/round_inputs for [m, k] numbers. REQUIRES: kInt8 or kFp8E4m3.
kernels::RoundInputsArgs RoundInputsArgsOf(const InputRounding& rounding, const float* x, int64_t m,
                                           int64_t k, float* out);

// out[m, k] = x[m, k] rounded and scaled back, as compressed-tensors does: kernels/round_inputs.
// REQUIRES: kInt8 or kFp8E4m3.
void RoundInputs(const InputRounding& rounding, const float* x, int64_t m, int64_t k, float* out,
                 const ParallelFor& parallel);

struct ScaledMatrix {
  ScaledCode code = ScaledCode::kInt8;
  std::span<const std::byte> codes;  // n rows of CodeRowBytes, without a gap
  ScaleType scale_type = ScaleType::kF32;
  std::span<const std::byte> scales;  // [ceil(n / block_n), ceil(k / block_k)], row-major
  // Of kInt4 only, maybe empty (all 0): per scale, packed down the rows like codes along a row, in
  // words [ceil(n / 8), ceil(k / block_k)]. Stored as z + 8. REQUIRES: block_n = 1.
  std::span<const std::byte> zero_points;
  std::shared_ptr<const void> owner;  // Of the memory behind the spans, which may be unaligned
  InputRounding input;
  int64_t n = 0, k = 0;
  int64_t block_n = 1, block_k = 1;  // Rows and columns that share a scale

  // out[k] = (q - z) * scale in fp32: one rounding, of the product (none of an int4 with a 16-bit
  // scale).
  void Decode(int64_t row, float* out) const;
  // out[k] = q - z. REQUIRES: not FP8.
  void Codes(int64_t row, int8_t* out) const;
  float Scale(int64_t index) const;  // Number `index` of `scales`
  // The ceil(k / block_k) scales of a row, and what is taken from its stored codes (8 + z of kInt4,
  // else 0).
  void BlockScales(int64_t row, float* scale, float* offset) const;
  int64_t CodeRowBytes() const;
  // Where the scale of a row and a block of columns lies among the scales.
  int64_t ScaleIndex(int64_t row, int64_t block) const;
  // What to take from a stored 4-bit code: z + 8, 0..15.
  int Int4Offset(int64_t row, int64_t block) const;
  // Sizes that n, k and the blocks ask for, in bytes.
  int64_t ScaleBytes() const;
  int64_t ZeroPointBytes() const;
};

// Throws FormatError ("where holds nan at 70") when a weight is NaN or Inf. Looks at the scales,
// and at the codes of FP8.
void CheckFinite(const ScaledMatrix& matrix, const std::string& where);

}  // namespace tern::engine
