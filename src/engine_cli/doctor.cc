// tern-engine doctor: what this machine can do, for the deploy half.
#include "engine_cli/doctor.h"

#include <dlfcn.h>
#include <hdf5.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <thread>

#include "engine_cli/commands.h"
#include "kernels/common/isa.h"

namespace tern::engine_cli {

void PrintDeployDoctor() {
  std::cout << "tern            " << TERN_VERSION << "\n"
            << "HDF5            " << H5_VERS_MAJOR << "." << H5_VERS_MINOR << "." << H5_VERS_RELEASE
            << "\n"
            << "processors      " << std::thread::hardware_concurrency() << "\n"
            << "instructions    " << kernels::ToString(kernels::ActiveIsa()) << " in use";
  std::cout << " (this processor has:";
  for (const kernels::Isa isa : kernels::AvailableIsas())
    std::cout << " " << kernels::ToString(isa);
  std::cout << "; TERN_ISA forces one)\n";
  void* plugin = dlopen("libtern_kernels_cuda.so", RTLD_NOW | RTLD_LOCAL);
  std::cout << "CUDA kernels    " << (plugin != nullptr ? "plug-in found" : "no plug-in: ")
            << (plugin != nullptr ? "" : dlerror()) << "\n";
}

void AddDoctorCommand(CLI::App& app) {
  CLI::App* command = app.add_subcommand("doctor", "What this machine can do, and why not");
  command->footer("Example: tern doctor");
  command->callback([] { PrintDeployDoctor(); });
}

}  // namespace tern::engine_cli
