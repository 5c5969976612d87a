// Many fp16 values at once: a matrix in F16 is decoded whenever it is used (engine/block_matrix.h).
#pragma once

#include <cstdint>

namespace tern::formats {

// out[i] = Fp16ToFp32 of the i-th half, by the processor's own conversion where it has one; both
// are exact. A NaN comes out as a NaN, whose payload may differ. `halves` may have any alignment.
void DecodeFp16(const uint8_t* halves, int64_t count, float* out);

}  // namespace tern::formats
