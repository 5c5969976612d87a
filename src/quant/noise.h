// Random numbers of stochastic rounding: element i of a matrix takes value first + i of a stream,
// so threads and ranks do not matter.
#pragma once

#include <cstdint>

#include "base/random.h"

namespace tern::quant {

struct Noise {
  RandomStream stream;
  uint64_t first = 0;

  // Uniform in [0, 1) with 24 bits.
  float At(int64_t i) const { return stream.UniformAt(first + static_cast<uint64_t>(i)); }
};

}  // namespace tern::quant
