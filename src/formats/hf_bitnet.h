// Hugging Face's packed ternary layout (transformers, quant_method "bitnet"): uint8 [N/4, K]; byte
// row r holds output rows r, r + N/4, r + 2N/4, r + 3N/4 at bits 0-1, 2-3, 4-5, 6-7; a code is
// weight + 1. See docs/formats/hf_bitnet.md.
#pragma once

#include <cstdint>
#include <vector>

namespace tern::formats {

// codes: [n, k] of -1, 0, 1. Throws FormatError when n is no multiple of 4.
std::vector<uint8_t> PackHfBitnet(const std::vector<int8_t>& codes, int64_t n, int64_t k);
// packed: [n/4, k]. Throws FormatError for the code 3, which stands for no weight.
std::vector<int8_t> UnpackHfBitnet(const uint8_t* packed, int64_t n, int64_t k);

}  // namespace tern::formats
