// tern report RUN: the report of a run folder; of several: a table of settings and their curves.
#include <CLI/CLI.hpp>
#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "cli/commands.h"
#include "job/run_table.h"

namespace tern::cli {
namespace {

struct Flags {
  std::vector<std::string> folders;
  std::string plot;
};

void Report(const Flags& flags) {
  if (flags.folders.size() == 1 && flags.plot.empty()) {
    std::cout << ReadFile(flags.folders.front() + "/report.md");
    return;
  }
  const job::RunTable table = job::CompareRuns(flags.folders);
  if (!flags.plot.empty()) {
    TERN_CHECK_INPUT(!table.curves_svg.empty(),
                     "--plot: no run has a validation loss in its metrics; nothing is drawn");
    WriteFileAtomically(flags.plot, table.curves_svg);
  }
  std::cout << table.markdown;
}

}  // namespace

void AddReportCommand(CLI::App& app) {
  CLI::App* report = app.add_subcommand("report", "Show the report of a run, or compare runs");
  report->footer(
      "Examples: tern report checkpoints/quickstart\n"
      "          tern report seed1/qat seed2/qat seed1/distill seed2/distill --plot curves.svg\n"
      "Runs of one recipe name are one setting: mean and 95 % interval over their seeds (Student's "
      "t).");
  auto flags = std::make_shared<Flags>();
  report->add_option("runs", flags->folders, "Run folders")->required();
  report->add_option("--plot", flags->plot, "Draw the validation losses over steps (SVG)");
  report->callback([flags] { Report(*flags); });
}

}  // namespace tern::cli
