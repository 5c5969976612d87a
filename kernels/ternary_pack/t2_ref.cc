// Scalar oracle of the T2 layout: one code after the other, straight from the picture in t2.h.
#include <algorithm>

#include "kernels/ternary_pack/t2.h"
#include "kernels/ternary_pack/t2_impl.h"

namespace tern::kernels {
namespace {

struct Place {
  int64_t byte;
  int shift;
};

// Where weight k of a row lives.
Place PlaceOf(int64_t k) {
  const int64_t in_block = k % kT2BlockWeights;
  return {k / kT2BlockWeights * kT2BlockBytes + in_block % kT2BlockBytes,
          static_cast<int>(2 * (in_block / kT2BlockBytes))};
}

}  // namespace

void PackT2RowRef(const int8_t* weights, int64_t k, uint8_t* packed) {
  std::fill_n(packed, T2RowBytes(k), uint8_t{0});
  for (int64_t i = 0; i < T2PaddedK(k); ++i) {
    const int code = i < k ? weights[i] + 1 : 1;
    const Place place = PlaceOf(i);
    packed[place.byte] = static_cast<uint8_t>(packed[place.byte] | code << place.shift);
  }
}

void UnpackT2RowRef(const uint8_t* packed, int64_t k, int8_t* weights) {
  for (int64_t i = 0; i < k; ++i) {
    const Place place = PlaceOf(i);
    weights[i] = static_cast<int8_t>((packed[place.byte] >> place.shift & 3) - 1);
  }
}

void DequantizeT2RowRef(const uint8_t* packed, int64_t k, float scale, float* out) {
  for (int64_t i = 0; i < k; ++i) {
    const Place place = PlaceOf(i);
    out[i] = scale * static_cast<float>((packed[place.byte] >> place.shift & 3) - 1);
  }
}

}  // namespace tern::kernels
