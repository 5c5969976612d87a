// The verbs that need no libtorch, one file each; mounted by tern-engine and by tern. Every
// function adds a subcommand whose callback does the work and throws typed errors.
#pragma once

namespace CLI {
class App;
}

namespace tern::engine_cli {

// Of the option --device of the verbs that run a model.
inline constexpr char kDeviceHelp[] =
    "cpu, cuda, cuda:INDEX, or simt: the CUDA kernels in an emulator, slowly, for tests";

void AddGenerateCommand(CLI::App& app);
void AddImportCommand(CLI::App& app);
void AddLogitsCommand(CLI::App& app);
void AddServeCommand(CLI::App& app);
void AddTokenizerCommand(CLI::App& app);
void AddInspectCommand(CLI::App& app);
void AddDoctorCommand(CLI::App& app);
// Returns it, for subcommands of the training half.
CLI::App* AddBenchCommand(CLI::App& app);

}  // namespace tern::engine_cli
