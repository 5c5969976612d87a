// The implementations behind t2.h, one an instruction set. For the dispatcher and the tests only.
// `rows` loops inside.
#pragma once

#include <cstdint>

namespace tern::kernels {

void PackT2RowRef(const int8_t* weights, int64_t k, uint8_t* packed);
void PackT2RowAvx2(const int8_t* weights, int64_t k, uint8_t* packed);
void PackT2RowAvx512(const int8_t* weights, int64_t k, uint8_t* packed);
void PackT2RowNeon(const int8_t* weights, int64_t k, uint8_t* packed);

void UnpackT2RowRef(const uint8_t* packed, int64_t k, int8_t* weights);
void UnpackT2RowAvx2(const uint8_t* packed, int64_t k, int8_t* weights);
void UnpackT2RowAvx512(const uint8_t* packed, int64_t k, int8_t* weights);
void UnpackT2RowNeon(const uint8_t* packed, int64_t k, int8_t* weights);

// One row of DequantizeT2.
void DequantizeT2RowRef(const uint8_t* packed, int64_t k, float scale, float* out);
void DequantizeT2RowAvx2(const uint8_t* packed, int64_t k, float scale, float* out);
void DequantizeT2RowAvx512(const uint8_t* packed, int64_t k, float scale, float* out);
void DequantizeT2RowNeon(const uint8_t* packed, int64_t k, float scale, float* out);

}  // namespace tern::kernels
