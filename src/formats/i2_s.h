// I2_S, the ternary type of Microsoft's fork of llama.cpp (docs/formats/i2_s.md; mainline refuses
// such files): a whole matrix of 2-bit codes in blocks of 128 weights, then 32 bytes of which the
// first four are the one fp32 scale. The scale multiplies: it is beta = max(mean|W|, 1e-5).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tern::formats {

inline constexpr int64_t kI2sWeights = 128, kI2sBlockBytes = 32, kI2sTailBytes = 32;

// Bytes of a matrix [n, k]. Throws FormatError when k is no multiple of 128.
int64_t I2sBytes(int64_t n, int64_t k);

// codes: [n, k] of -1, 0, 1, row-major. Throws FormatError when k is no multiple of 128.
std::vector<uint8_t> PackI2s(std::span<const int8_t> codes, int64_t n, int64_t k, float scale);

struct I2sMatrix {
  std::vector<int8_t> codes;  // [n, k]
  float scale = 0;
};
// Throws FormatError for another size than I2sBytes, a code of 3, or a scale that is no number
// above 0.
I2sMatrix UnpackI2s(std::span<const uint8_t> bytes, int64_t n, int64_t k);

}  // namespace tern::formats
