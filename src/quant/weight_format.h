// How a low-bit matrix is stored: the type of its codes, which weights share a scale, and the type
// of the scales. One description for fake quantization, post-training quantization and export, so
// that what was trained or measured is what the file holds.
#pragma once

#include <cstdint>
#include <string>

#include "quant/grid.h"

namespace tern::quant {

enum class Element { kInt, kE4m3, kE5m2, kE2m1 };

// Scales are rounded to this type before any code is computed. kE8m0: powers of two, rounded up (no
// code saturates; better than the specification's rounding down, docs/quantize.md).
enum class ScaleDtype { kF32, kBf16, kF16, kE4m3, kE8m0 };

struct WeightFormat {
  Element element = Element::kInt;
  int bits = 4;           // Of kInt, 2 to 8: codes -2^(bits-1) .. 2^(bits-1) - 1
  bool symmetric = true;  // Of kInt; else every scale has a zero point of the codes' range
  // Rows and columns that share a scale; 0: all. {1, 64}: groups; {1, 0}: rows; {0, 0}: the tensor.
  int64_t block_n = 1, block_k = 0;
  ScaleDtype scale_dtype = ScaleDtype::kBf16;
  // NVFP4: a scale is multiplied by G = 448 * 6 / amax of the tensor before it is rounded to E4M3,
  // and divided by it when it is used.
  bool has_global_scale = false;

  Grid grid() const;
  // One scale holds for the whole matrix, alone or above the blocks' own.
  bool HasTensorScale() const { return has_global_scale || (block_n == 0 && block_k == 0); }
  // Bits of storage a weight takes in an [n, k] matrix, scales and zero points included.
  double BitsPerWeight(int64_t n, int64_t k) const;
  std::string Describe() const;  // "int4, a bf16 scale for 1 x 64 weights"
  bool operator==(const WeightFormat&) const = default;
};

// Formats that engines load. `group`: columns that share a scale.
WeightFormat IntFormat(int bits, int64_t group, bool symmetric = true,
                       ScaleDtype scale = ScaleDtype::kBf16);
// E4M3 or E5M2 with bf16 scales: one a row, one for n x k weights, one a matrix.
WeightFormat Fp8Rows(Element element = Element::kE4m3);
WeightFormat Fp8Blocks(int64_t n, int64_t k, Element element = Element::kE4m3);
WeightFormat Fp8Tensor(Element element = Element::kE4m3);
WeightFormat Nvfp4();  // E2M1, groups of 16, E4M3 scales, a global fp32 scale
WeightFormat Mxfp4();  // E2M1, groups of 32, E8M0 scales
// llama.cpp's Q4_0 and Q8_0 (bits 4, 8): groups of 32, fp16 scales.
WeightFormat GgufFormat(int bits);

// Throws InputError when a matrix of k columns does not divide into the format's groups.
void CheckGroups(const WeightFormat& format, int64_t k, const std::string& name);

// The nearest scale of the type that is above 0; one that would be 0 becomes the least normal
// number. Throws NumericError for one that is too large. REQUIRES: scale >= 0, finite.
float RoundScale(ScaleDtype dtype, float scale);

// The least normal number of the type.
float LeastScale(ScaleDtype dtype);

const char* ToString(ScaleDtype dtype);  // "bf16"

}  // namespace tern::quant
