// The one dense product of a device, and the only one that is no kernel of ours: cuBLASLt on a GPU
// (gemm.cu), plain loops with the same rounding in the emulator (device/simt_gemm.cc). For products
// of many rows with matrices that are not ternary and not of 4 bits.
#pragma once

#include <cstdint>

namespace tern::kernels {

enum class GemmType { kF32, kF16, kBf16 };

// y[m, n] = x[m, k] w[n, k]^T. Device pointers, aligned to 16 bytes; rows lie without a gap. x and w
// are of `type`, products are exact in fp32 (fp16, bf16) or rounded once, sums and y fp32. On a GPU
// the order of a sum is cuBLASLt's choice.
struct GemmArgs {
  GemmType type = GemmType::kF16;
  const void* x = nullptr;
  const void* w = nullptr;
  float* y = nullptr;
  int64_t m = 0, n = 0, k = 0;
};

// Never throws: an error text, or null when all is well. Returns as soon as the work is queued.
const char* LaunchGemm(const GemmArgs& args, void* stream);

// The oracle, on the host: sums in the order of k.
void GemmRef(const GemmArgs& args);

}  // namespace tern::kernels
