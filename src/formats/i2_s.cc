// See i2_s.h.
#include "formats/i2_s.h"

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "formats/two_bit_codes.h"

namespace tern::formats {
namespace {

constexpr int64_t kFields = 4;

// Weight of bit field f of byte b is b + 32 f; field 0 is the highest.
constexpr int64_t Shift(int64_t field) { return 6 - 2 * field; }

}  // namespace

int64_t I2sBytes(int64_t n, int64_t k) {
  TERN_CHECK(n >= 0 && k >= 0, "[", n, ", ", k, "]");
  TERN_CHECK_FORMAT(k % kI2sWeights == 0, "rows of ", k,
                    " weights cannot be I2_S, whose blocks have ", kI2sWeights);
  return n * k / kFields + kI2sTailBytes;
}

std::vector<uint8_t> PackI2s(std::span<const int8_t> codes, int64_t n, int64_t k, float scale) {
  std::vector<uint8_t> bytes(static_cast<size_t>(I2sBytes(n, k)));
  TERN_CHECK(static_cast<int64_t>(codes.size()) == n * k, codes.size(), " codes for [", n, ", ", k,
             "]");
  uint8_t* out = bytes.data();
  for (const int8_t* in = codes.data(); in != codes.data() + codes.size();
       in += kI2sWeights, out += kI2sBlockBytes) {
    for (int64_t b = 0; b < kI2sBlockBytes; ++b) {
      unsigned byte = 0;
      for (int64_t f = 0; f < kFields; ++f) {
        byte |= static_cast<unsigned>(in[b + kI2sBlockBytes * f] + 1) << Shift(f);
      }
      out[b] = static_cast<uint8_t>(byte);
    }
  }
  std::memcpy(out, &scale, sizeof scale);
  return bytes;
}

I2sMatrix UnpackI2s(std::span<const uint8_t> bytes, int64_t n, int64_t k) {
  TERN_CHECK_FORMAT(static_cast<int64_t>(bytes.size()) == I2sBytes(n, k), "an I2_S matrix [", n,
                    ", ", k, "] has ", bytes.size(), " bytes; want ", I2sBytes(n, k));
  I2sMatrix matrix;
  matrix.codes.resize(static_cast<size_t>(n * k));
  const uint8_t* in = bytes.data();
  int8_t* out = matrix.codes.data();
  for (int64_t block = 0; block < n * k / kI2sWeights; ++block) {
    TERN_CHECK_FORMAT(!HoldsThree(in, kI2sBlockBytes), "block ", block,
                      " of an I2_S matrix holds the code 3, which is no weight");
    for (int64_t f = 0; f < kFields; ++f) {
      for (int64_t b = 0; b < kI2sBlockBytes; ++b) {
        const int code = in[b] >> Shift(f) & 3;
        out[kI2sBlockBytes * f + b] = static_cast<int8_t>(code - 1);
      }
    }
    in += kI2sBlockBytes;
    out += kI2sWeights;
  }
  std::memcpy(&matrix.scale, in, sizeof matrix.scale);
  TERN_CHECK_FORMAT(std::isfinite(matrix.scale) && matrix.scale > 0,
                    "the scale of an I2_S matrix is ", matrix.scale, "; want a number above 0");
  return matrix;
}

}  // namespace tern::formats
