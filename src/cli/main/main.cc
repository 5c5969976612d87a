// tern: everything in one program. A verb is a file in src/cli or, without libtorch, in
// src/engine_cli.
#include <CLI/CLI.hpp>

#include "cli/commands.h"
#include "engine_cli/commands.h"
#include "engine_cli/run_main.h"

int main(int argc, char** argv) {
  CLI::App app("tern: trains, distils and ships ternary and other low-bit language models");
  app.require_subcommand(1);
  app.set_version_flag("--version", TERN_VERSION);
  tern::cli::AddRunCommand(app);
  tern::cli::AddRecipeCommand(app);
  tern::cli::AddPlanCommand(app);
  tern::cli::AddExportCommand(app);
  tern::cli::AddQuantizeCommand(app);
  tern::cli::AddVerifyCommand(app);
  tern::cli::AddEvalCommand(app);
  tern::engine_cli::AddGenerateCommand(app);
  tern::engine_cli::AddImportCommand(app);
  tern::engine_cli::AddLogitsCommand(app);
  tern::engine_cli::AddServeCommand(app);
  tern::cli::AddBenchTrainCommand(*tern::engine_cli::AddBenchCommand(app));
  tern::engine_cli::AddInspectCommand(app);
  tern::engine_cli::AddTokenizerCommand(app);
  tern::cli::AddReportCommand(app);
  tern::cli::AddDoctorCommand(app);
  return tern::engine_cli::RunMain(app, argc, argv);
}
