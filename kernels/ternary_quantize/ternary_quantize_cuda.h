// The C++ face of the weight quantizer in libtern_kernels_cuda.so, for code that compiles without
// the toolkit. Never throws: each returns an error text, or null when all is well, as soon as the
// work is queued. `stream` is a cudaStream_t or null.
#pragma once

#include <cstdint>

#include "kernels/ternary_quantize/ternary_quantize.h"

namespace tern::kernels {

// Device pointers; t2 and previous aligned to 4 bytes, w fastest where it is aligned to 16 and k is
// a multiple of 4.
struct TernaryQuantizeCudaArgs {
  const float* w;           // [n, k]
  const float* beta;        // One value: what TernaryScale gives.
  uint8_t* t2;              // [n, padded_k / 4]
  const uint8_t* previous;  // As t2, may be t2 itself, or null.
  TernaryCounts* counts;    // Added to: zero them first.
  int64_t n;
  int k;
  int padded_k;  // T2PaddedK(k), a multiple of 128.
};

// *beta = TernaryScale(w, count). Device pointers; block_sums: scratch of ceil(count /
// kAbsMeanBlock) floats. REQUIRES: count > 0.
const char* LaunchTernaryScale(const float* w, int64_t count, float* block_sums, float* beta,
                               void* stream);

// TernaryQuantize with beta in device memory; adds to args.counts.
const char* LaunchTernaryQuantize(const TernaryQuantizeCudaArgs& args, void* stream);

}  // namespace tern::kernels
