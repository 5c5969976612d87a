// The verbs of `tern`, one file each. Every function adds a subcommand whose callback does the work
// and throws typed errors; main.cc turns those into one line on stderr and an exit code.
#pragma once

namespace CLI {
class App;
}

namespace tern::cli {

void AddRunCommand(CLI::App& app);
void AddRecipeCommand(CLI::App& app);
void AddPlanCommand(CLI::App& app);
void AddExportCommand(CLI::App& app);
void AddQuantizeCommand(CLI::App& app);
void AddVerifyCommand(CLI::App& app);
void AddEvalCommand(CLI::App& app);
// Below the bench verb of engine_cli.
void AddBenchTrainCommand(CLI::App& bench);
void AddReportCommand(CLI::App& app);
void AddDoctorCommand(CLI::App& app);

}  // namespace tern::cli
