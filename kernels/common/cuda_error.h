// What the host launchers of CUDA kernels return. Needs the CUDA Toolkit.
#pragma once

#include <cuda_runtime.h>

namespace tern::kernels {

// The error's text, or null when all is well.
inline const char* ErrorText(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace tern::kernels
