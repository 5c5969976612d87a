// What libtern_torch_cuda.so gives: libtorch's CUDA part and NCCL, which no program links (520 MB
// to load, and the driver's libraries). parallel/gpu.h opens it; nobody else includes this.
// Functions do not throw: what they give is null or -1 with the reason in *error.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>

#include <cstdint>
#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace tern::parallel {

// Raised with every change below: a plug-in of another build is refused instead of misread.
inline constexpr int kTorchCudaVersion = 2;

struct TorchCudaApi {
  int version;
  const char* torch_version;  // Of the libtorch it was built against
  // GPUs that can be used; -1: none, for the driver's or the runtime's reason.
  int (*device_count)(std::string* error);
  // Makes GPU `index` this process's and describes it: name, memory, compute capability. "":
  // failed.
  std::string (*take)(int index, std::string* error);
  // Bytes that GPU `index` has in all; -1: failed.
  int64_t (*memory)(int index, std::string* error);
  // c10d's NCCL for the tensors of GPU `index`.
  c10::intrusive_ptr<c10d::Backend> (*make_nccl)(const c10::intrusive_ptr<c10d::Store>& store,
                                                 int rank, int size, int index, double timeout_s,
                                                 std::string* error);
};

inline constexpr char kTorchCudaLibrary[] = "libtern_torch_cuda.so";
// The only name that is looked up in it.
inline constexpr char kTorchCudaSymbol[] = "TernTorchCudaApi";
using TorchCudaApiFunction = const TorchCudaApi* (*)();

}  // namespace tern::parallel
