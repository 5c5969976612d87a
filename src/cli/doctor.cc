// tern doctor: what this machine can do, training half included.
#include "engine_cli/doctor.h"

#include <ATen/Parallel.h>
#include <torch/version.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "base/progress.h"
#include "cli/commands.h"
#include "cli/threads.h"
#include "nn/precision.h"
#include "plan/plan.h"

namespace tern::cli {

void AddDoctorCommand(CLI::App& app) {
  CLI::App* command = app.add_subcommand("doctor", "What this machine can do, and why not");
  command->footer("Example: tern doctor");
  command->callback([] {
    SetThreads(0);
    engine_cli::PrintDeployDoctor();
    std::cout << "libtorch        " << TORCH_VERSION << ", " << at::get_num_threads()
              << " threads\n"
              << "BF16 products   "
              << (nn::HasNativeBf16(at::kCPU) ? "on BF16 instructions"
                                              : "rounded operands, fp32 instructions")
              << "\n"
              << "fp32 GEMM       " << FormatSi(plan::MeasureGemmPeak()) << "FLOP/s measured\n"
              << "CUDA training   not in this build (cuDNN and NCCL come with the training "
                 "plug-in): train.device is cpu\n";
  });
}

}  // namespace tern::cli
