// tern doctor: what this machine can do, training half included.
#include "engine_cli/doctor.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <torch/version.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "base/error.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/threads.h"
#include "nn/precision.h"
#include "parallel/gpu.h"
#include "plan/plan.h"

namespace tern::cli {
namespace {

// What the libtorch at hand was built with; a CPU build has none of them.
std::string CudaVersions() {
  const at::CUDAHooksInterface& hooks = at::detail::getCUDAHooks();
  if (!hooks.hasCUDART()) return "none: this libtorch is built for CPUs";
  std::string versions = StrCat("CUDA ", hooks.versionCUDART(), ", cuDNN ",
                                hooks.hasCuDNN() ? StrCat(hooks.versionRuntimeCuDNN()) : "none");
  int nccl = 0;
  if (void* found = dlsym(RTLD_DEFAULT, "ncclGetVersion"); found != nullptr) {
    using Function = int (*)(int*);
    reinterpret_cast<Function>(found)(&nccl);
  }
  return StrCat(versions, ", NCCL ", nccl > 0 ? StrCat(nccl) : "none", ", ", hooks.getNumGPUs(),
                " GPUs");
}

}  // namespace

void AddDoctorCommand(CLI::App& app) {
  CLI::App* command = app.add_subcommand("doctor", "What this machine can do, and why not");
  command->footer("Example: tern doctor");
  command->callback([] {
    const std::string no_gpu = parallel::WhyNoGpu();  // Before libtorch looks for its CUDA part
    SetThreads(0);
    engine_cli::PrintDeployDoctor();
    std::cout << "libtorch        " << TORCH_VERSION << ", " << at::get_num_threads()
              << " threads\n"
              << "BF16 products   "
              << (nn::HasNativeBf16(at::kCPU) ? "on BF16 instructions"
                                              : "rounded operands, fp32 instructions")
              << "\n"
              << "fp32 GEMM       " << FormatSi(plan::MeasureGemmPeak()) << "FLOP/s measured\n"
              << "libtorch CUDA   " << CudaVersions() << "\n"
              << "training        on CPUs"
              << (no_gpu.empty() ? " and GPUs" : StrCat("; not on GPUs: ", no_gpu)) << "\n";
  });
}

}  // namespace tern::cli
