// See gpu.h.
#include "parallel/gpu.h"

#include <dlfcn.h>
#include <torch/version.h>
#include <unistd.h>

#include <cstdlib>

#include "base/error.h"
#include "base/log.h"
#include "base/plugin.h"
#include "parallel/cuda/torch_cuda.h"

namespace tern::parallel {
namespace {

// The plug-in's table, or why there is none. Never closed: libtorch keeps what it has registered.
struct Plugin {
  const TorchCudaApi* api = nullptr;
  std::string why_not;
};

Plugin Open() {
  std::string reasons;
  // Global: libtorch and NCCL find symbols of each other by name.
  void* library = OpenPlugin(kTorchCudaLibrary, RTLD_NOW | RTLD_GLOBAL, &reasons);
  if (library == nullptr) {
    return {nullptr, StrCat("this build of tern has no CUDA part (", reasons,
                            "); build it with scripts/setup --cuda and cmake --preset gpu "
                            "(docs/distributed.md)")};
  }
  const auto function = reinterpret_cast<TorchCudaApiFunction>(dlsym(library, kTorchCudaSymbol));
  if (function == nullptr || function()->version != kTorchCudaVersion ||
      std::string_view(function()->torch_version) != TORCH_VERSION) {
    return {nullptr, StrCat(kTorchCudaLibrary,
                            " is of another build of tern or libtorch; build it again together "
                            "with tern")};
  }
  return {function(), ""};
}

const Plugin& ThePlugin() {
  static const Plugin plugin = Open();
  return plugin;
}

// GPUs that can be used; none: 0 and the reason.
int CountGpus(std::string* why_none) {
  const Plugin& plugin = ThePlugin();
  if (plugin.api == nullptr) {
    *why_none = plugin.why_not;
    return 0;
  }
  const int count = plugin.api->device_count(why_none);
  if (count > 0) return count;
  *why_none = StrCat("no GPU can be used: ", *why_none,
                     ". See what nvidia-smi says, or train with device: cpu");
  return 0;
}

std::string WhyNoGpuFor(const Topology& topology) {
  std::string why;
  const int count = CountGpus(&why);
  if (count >= topology.local_world || !why.empty()) return why;
  return StrCat("this machine has ", count, " GPUs for ", topology.local_world,
                " ranks, and each wants one; start as many ranks as there are GPUs "
                "(CUDA_VISIBLE_DEVICES hides some), or train with device: cpu");
}

// Of the kernel module's device files; what can be said without loading half a gigabyte.
bool HasDriver() {
  return ::access("/dev/nvidiactl", F_OK) == 0 || ::access("/dev/dxg", F_OK) == 0;
}

void SetDefault(const char* name, const char* value) { ::setenv(name, value, /*overwrite=*/0); }

}  // namespace

std::string WhyNoGpu() {
  std::string why;
  CountGpus(&why);
  return why;
}

c10::Device TakeDevice(std::string_view wanted, const Topology& topology) {
  if (wanted == "cpu" || (wanted == "auto" && !HasDriver())) return c10::kCPU;
  std::string why = WhyNoGpuFor(topology);
  const int index = topology.local_rank;
  if (why.empty()) {
    const std::string found = ThePlugin().api->take(index, &why);
    if (why.empty()) {
      LogInfo("rank ", topology.rank, " computes on cuda:", index, " (", found, ")");
      return {c10::kCUDA, static_cast<c10::DeviceIndex>(index)};
    }
  }
  if (wanted == "auto") {
    LogWarn("device: auto takes the CPU: ", why);
    return c10::kCPU;
  }
  throw ResourceError(StrCat("device: cuda: ", why));
}

int64_t DeviceMemory(const c10::Device& device) {
  if (!device.is_cuda()) return 0;
  TERN_CHECK(ThePlugin().api != nullptr, "on ", device.str());
  std::string why;
  const int64_t bytes = ThePlugin().api->memory(device.index(), &why);
  if (bytes < 0) throw ResourceError(StrCat("cannot ask ", device.str(), " for its memory: ", why));
  return bytes;
}

c10::intrusive_ptr<c10d::Backend> MakeNcclBackend(const c10::intrusive_ptr<c10d::Store>& store,
                                                  int rank, int size, const c10::Device& device,
                                                  double timeout_s) {
  TERN_CHECK(device.is_cuda() && ThePlugin().api != nullptr, "on ", device.str());
  // 3: the watchdog ends the process without waiting for collectives that hang (libtorch's default,
  // where torchrun asks for 1).
  SetDefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "3");
  SetDefault("TORCH_NCCL_ENABLE_MONITORING", "1");
  SetDefault("TORCH_NCCL_PROPAGATE_ERROR", "1");  // Through the store, so that all end and dump
  SetDefault("TORCH_FR_BUFFER_SIZE", "2000");     // Collectives that the flight recorder keeps
  SetDefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "1");
  std::string why;
  auto backend = ThePlugin().api->make_nccl(store, rank, size, device.index(), timeout_s, &why);
  if (backend == nullptr) throw ResourceError(StrCat("rank ", rank, ": NCCL cannot start: ", why));
  return backend;
}

}  // namespace tern::parallel
