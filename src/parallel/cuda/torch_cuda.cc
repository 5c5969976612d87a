// See torch_cuda.h. Compiled against a CUDA build of libtorch (cmake/TernTorchCuda.cmake).
#include "parallel/cuda/torch_cuda.h"

#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAFunctions.h>
#include <torch/version.h>

#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "base/error.h"

namespace tern::parallel {
namespace {

constexpr int kOldestMajor = 8;  // As of the kernels: BF16 and asynchronous copies

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

int DeviceCount(std::string* error) {
  try {
    return c10::cuda::device_count_ensure_non_zero();
  } catch (const std::exception& e) {
    *error = FirstLine(e.what());
    return -1;
  }
}

std::string Take(int index, std::string* error) {
  try {
    const auto device = static_cast<c10::DeviceIndex>(index);
    const cudaDeviceProp& properties = *at::cuda::getDeviceProperties(device);
    if (properties.major < kOldestMajor) {
      *error = StrCat(properties.name, " has compute capability ", properties.major, ".",
                      properties.minor, "; want 8.0 or later");
      return "";
    }
    c10::cuda::set_device(device);
    return StrCat(properties.name, ", ", properties.totalGlobalMem >> 30,
                  " GiB, compute capability ", properties.major, ".", properties.minor);
  } catch (const std::exception& e) {
    *error = FirstLine(e.what());
    return "";
  }
}

int64_t Memory(int index, std::string* error) {
  try {
    const auto device = static_cast<c10::DeviceIndex>(index);
    return static_cast<int64_t>(at::cuda::getDeviceProperties(device)->totalGlobalMem);
  } catch (const std::exception& e) {
    *error = FirstLine(e.what());
    return -1;
  }
}

c10::intrusive_ptr<c10d::Backend> MakeNccl(const c10::intrusive_ptr<c10d::Store>& store, int rank,
                                           int size, int index, double timeout_s,
                                           std::string* error) {
  try {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(static_cast<int64_t>(timeout_s * 1e3));
    auto nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
    nccl->setBoundDeviceId(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index)));
    return nccl;
  } catch (const std::exception& e) {
    *error = FirstLine(e.what());
    return nullptr;
  }
}

constexpr TorchCudaApi kApi = {kTorchCudaVersion, TORCH_VERSION, DeviceCount, Take, Memory,
                               MakeNccl};

}  // namespace
}  // namespace tern::parallel

extern "C" const tern::parallel::TorchCudaApi* TernTorchCudaApi() { return &tern::parallel::kApi; }
