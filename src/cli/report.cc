// tern report RUN: the report of a run folder.
#include <CLI/CLI.hpp>
#include <iostream>

#include "base/file.h"
#include "cli/commands.h"

namespace tern::cli {

void AddReportCommand(CLI::App& app) {
  CLI::App* report = app.add_subcommand("report", "Show the report of a run");
  report->footer("Example: tern report checkpoints/quickstart");
  auto folder = std::make_shared<std::string>();
  report->add_option("run", *folder, "Run folder")->required();
  report->callback([folder] { std::cout << ReadFile(*folder + "/report.md"); });
}

}  // namespace tern::cli
