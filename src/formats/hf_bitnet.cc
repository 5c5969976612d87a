// See hf_bitnet.h.
#include "formats/hf_bitnet.h"

#include "base/error.h"
#include "formats/two_bit_codes.h"

namespace tern::formats {
namespace {

constexpr int64_t kRowsPerByte = 4;

int64_t PackedRows(int64_t n, int64_t k) {
  TERN_CHECK(n >= 0 && k >= 0, "[", n, ", ", k, "]");
  TERN_CHECK_FORMAT(n % kRowsPerByte == 0, n, " output rows cannot be packed four in a byte");
  return n / kRowsPerByte;
}

}  // namespace

std::vector<uint8_t> PackHfBitnet(const std::vector<int8_t>& codes, int64_t n, int64_t k) {
  const int64_t stripe = PackedRows(n, k) * k;  // Codes of a quarter of the rows
  TERN_CHECK(static_cast<int64_t>(codes.size()) == n * k, codes.size(), " codes for [", n, ", ", k,
             "]");
  std::vector<uint8_t> packed(static_cast<size_t>(stripe));
  for (int64_t s = 0; s < kRowsPerByte; ++s) {
    const int8_t* from = codes.data() + s * stripe;
    for (int64_t i = 0; i < stripe; ++i) {
      packed[static_cast<size_t>(i)] |=
          static_cast<uint8_t>(static_cast<unsigned>(from[i] + 1) << (2 * s));
    }
  }
  return packed;
}

std::vector<int8_t> UnpackHfBitnet(const uint8_t* packed, int64_t n, int64_t k) {
  const int64_t stripe = PackedRows(n, k) * k;
  const bool damaged = HoldsThree(packed, stripe);
  for (int64_t i = 0; damaged && i < stripe; ++i) {
    TERN_CHECK_FORMAT(!HoldsThree(packed + i, 1), "byte ", i,
                      " of a packed ternary matrix holds the code 3, which is no weight");
  }
  std::vector<int8_t> codes(static_cast<size_t>(n * k));
  for (int64_t s = 0; s < kRowsPerByte; ++s) {
    int8_t* to = codes.data() + s * stripe;
    for (int64_t i = 0; i < stripe; ++i) {
      const int code = packed[i] >> (2 * s) & 3;
      to[i] = static_cast<int8_t>(code - 1);
    }
  }
  return codes;
}

}  // namespace tern::formats
