// See hf_bitnet.h.
#include "formats/hf_bitnet.h"

#include "base/error.h"

namespace tern::formats {
namespace {

constexpr int64_t kRowsPerByte = 4;

int64_t PackedRows(int64_t n) {
  TERN_CHECK_FORMAT(n % kRowsPerByte == 0, n, " output rows cannot be packed four in a byte");
  return n / kRowsPerByte;
}

}  // namespace

std::vector<uint8_t> PackHfBitnet(const std::vector<int8_t>& codes, int64_t n, int64_t k) {
  const int64_t rows = PackedRows(n);
  TERN_CHECK(static_cast<int64_t>(codes.size()) == n * k, codes.size(), " codes for [", n, ", ", k, "]");
  std::vector<uint8_t> packed(static_cast<size_t>(rows * k));
  for (int64_t i = 0; i < n * k; ++i) {
    const int64_t stripe = i / (rows * k);
    packed[static_cast<size_t>(i % (rows * k))] |=
        static_cast<uint8_t>(static_cast<unsigned>(codes[static_cast<size_t>(i)] + 1) << (2 * stripe));
  }
  return packed;
}

std::vector<int8_t> UnpackHfBitnet(const uint8_t* packed, int64_t n, int64_t k) {
  const int64_t rows = PackedRows(n);
  std::vector<int8_t> codes(static_cast<size_t>(n * k));
  for (int64_t i = 0; i < n * k; ++i) {
    const int64_t stripe = i / (rows * k), byte = i % (rows * k);
    const int code = packed[byte] >> (2 * stripe) & 3;
    TERN_CHECK_FORMAT(code != 3, "byte ", byte, " of a packed ternary matrix holds the code 3, which is no weight");
    codes[static_cast<size_t>(i)] = static_cast<int8_t>(code - 1);
  }
  return codes;
}

}  // namespace tern::formats
