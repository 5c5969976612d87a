// E4M3 casts over arrays, cut for the caller's threads. The compiler's own vectors are enough here:
// the casts are bound by memory in every use (a weight or an activation once).
#include "kernels/fp8/fp8.h"

#include <array>

namespace tern::kernels {
namespace {

constexpr int64_t kGrain = 16384;  // Values: a few us of work; less does not pay for a wake-up.

// The value of every code.
const std::array<float, 256>& Values() {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> table{};
    for (size_t code = 0; code < table.size(); ++code)
      table[code] = E4M3ToFp32Ref(static_cast<uint8_t>(code));
    return table;
  }();
  return values;
}

}  // namespace

void Fp32ToE4M3(const float* x, int64_t count, uint8_t* out, const ParallelFor& parallel) {
  parallel(count, kGrain, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = Fp32ToE4M3Ref(x[i]);
  });
}

void E4M3ToFp32(const uint8_t* x, int64_t count, float* out, const ParallelFor& parallel) {
  parallel(count, kGrain, [=, values = Values().data()](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = values[x[i]];
  });
}

}  // namespace tern::kernels
