// The one dense product of a device, and the only one that is no kernel of ours: cuBLASLt on a GPU
// (gemm.cu), plain loops with the same rounding in the emulator (device/simt_gemm.cc). For products
// of many rows with matrices that are not ternary and not of 4 bits.
#pragma once

#include <cstdint>

namespace tern::kernels {

enum class GemmType { kF32, kF16, kBf16, kE4m3 };

// y[m, n] = x[m, k] w[n, k]^T. Device pointers, aligned to 16 bytes; rows lie without a gap. x and
// w are of `type`, products are exact in fp32 (16 bits, FP8) or rounded once, sums and y fp32. On a
// GPU the order of a sum is cuBLASLt's choice. kE4m3: codes without a scale, and where
// Fp8GemmRuns only.
struct GemmArgs {
  GemmType type = GemmType::kF16;
  const void* x = nullptr;
  const void* w = nullptr;
  float* y = nullptr;
  int64_t m = 0, n = 0, k = 0;
};

// Never throws: an error text, or null when all is well. Returns as soon as the work is queued.
const char* LaunchGemm(const GemmArgs& args, void* stream);

// What cuBLASLt asks of FP8 matrices: rows of x and w that begin at a multiple of 16 bytes, sizes
// of w that are multiples of 16; m is free.
inline bool Fp8GemmFits(int64_t n, int64_t k) { return n % 16 == 0 && k % 16 == 0; }
// Tensor cores of FP8 are there from Ada on.
inline bool HasFp8TensorCores(int major, int minor) {
  return major > 8 || (major == 8 && minor >= 9);
}
// Whether the device that is in use multiplies E4M3 matrices of this shape: its age, the rules
// above, and whether cuBLASLt has a way to do it.
bool Fp8GemmRuns(int64_t m, int64_t n, int64_t k);

// The oracle, on the host: sums in the order of k.
void GemmRef(const GemmArgs& args);

}  // namespace tern::kernels
