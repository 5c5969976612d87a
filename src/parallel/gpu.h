// The GPU of this rank. libtorch's CUDA part is a plug-in (parallel/cuda) that the first job which
// wants a GPU opens; programs link libtorch's CPU part alone. Call it before any tensor is made:
// libtorch looks for its CUDA part once.
#pragma once

#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <string>
#include <string_view>

#include "parallel/launch.h"

namespace c10d {
class Backend;
class Store;
}  // namespace c10d

namespace tern::parallel {

// Why this process cannot compute on GPUs: what was found and what to do. "": it can. Opens the
// plug-in.
std::string WhyNoGpu();

// What a job may ask for: "cpu", "cuda", or "auto", a GPU where there is one for each rank of this
// machine.
// The device of this rank: the CPU, or GPU number local_rank, which becomes the process's own. Of
// "auto", a driver without a usable GPU is a warning. Throws ResourceError when "cuda" cannot be
// had: no plug-in, no driver, no GPU, fewer GPUs than ranks here.
c10::Device TakeDevice(std::string_view wanted, const Topology& topology);

// Bytes of a GPU's memory; 0 for the CPU. Throws ResourceError. REQUIRES: as below.
int64_t DeviceMemory(const c10::Device& device);

// c10d's NCCL for the tensors of `device`. Sets what NCCL's watchdog reads from the environment
// where the user has not: a collective beyond timeout_s ends the process, after the flight recorder
// of every rank is written (TORCH_FR_DUMP_TEMP_FILE). Throws ResourceError. REQUIRES: TakeDevice
// gave `device`.
c10::intrusive_ptr<c10d::Backend> MakeNcclBackend(const c10::intrusive_ptr<c10d::Store>& store,
                                                  int rank, int size, const c10::Device& device,
                                                  double timeout_s);

}  // namespace tern::parallel
