// The second half of encoding a k-quant block, the same whatever found its scales: every weight to
// the nearest code of the rounded scale, and the bytes. codes[256]: those of the search, which stay
// where a scale is 0.
#pragma once

#include <cstdint>

namespace tern::formats {

struct SubBlocks {
  uint8_t scale[16] = {}, min[16] = {};  // As they are stored, before packing
  float d = 0, dmin = 0;                 // To be rounded to fp16
};

// x: 256 weights. Q3_K: scale is 0 .. 63 and stands for scale - 32, no min. Q6_K: scale holds the
// bits of an int8, no min.
void FinishQ2K(const float* x, const SubBlocks& sub, uint8_t* codes, uint8_t* out);
void FinishQ3K(const float* x, const SubBlocks& sub, uint8_t* codes, uint8_t* out);
void FinishQ4K(const float* x, const SubBlocks& sub, uint8_t* codes, uint8_t* out);
void FinishQ5K(const float* x, const SubBlocks& sub, uint8_t* codes, uint8_t* out);
void FinishQ6K(const float* x, const SubBlocks& sub, uint8_t* codes, uint8_t* out);

}  // namespace tern::formats
