// The C++ face of libtern_kernels_cuda.so: launches the ternary product for 1 to 8 vectors on the
// current device. No CUDA type appears here, so that the engine compiles without the toolkit and
// loads the library only where a device is asked for. Never throws: returns an error text, or null
// when all is well.
#pragma once

#include <cstdint>

namespace tern::kernels {

struct TernaryGemvArgs;

// Devices that can be used; 0 also where there is no driver.
int CudaDeviceCount();

// y[b] = W x[b] for b < batch (1..8); args as in ternary_gemv.cuh, all device pointers. `stream` is
// a cudaStream_t or null. Returns as soon as the kernel is queued.
const char* LaunchTernaryGemv(const TernaryGemvArgs& args, int batch, void* stream);

}  // namespace tern::kernels
