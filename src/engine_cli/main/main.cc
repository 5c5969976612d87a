// tern-engine: the deploy half as a program of its own, without libtorch.
#include <CLI/CLI.hpp>

#include "engine_cli/commands.h"
#include "engine_cli/eval.h"
#include "engine_cli/run_main.h"

int main(int argc, char** argv) {
  CLI::App app("tern-engine: runs, inspects and measures packed low-bit models");
  app.require_subcommand(1);
  app.set_version_flag("--version", TERN_VERSION);
  tern::engine_cli::AddGenerateCommand(app);
  tern::engine_cli::AddImportCommand(app);
  tern::engine_cli::AddLogitsCommand(app);
  tern::engine_cli::AddEvalCommand(app);
  tern::engine_cli::AddServeCommand(app);
  tern::engine_cli::AddTokenizerCommand(app);
  tern::engine_cli::AddInspectCommand(app);
  tern::engine_cli::AddDoctorCommand(app);
  tern::engine_cli::AddBenchCommand(app);
  return tern::engine_cli::RunMain(app, argc, argv);
}
