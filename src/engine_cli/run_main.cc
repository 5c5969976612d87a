// See run_main.h.
#include "engine_cli/run_main.h"

#include <CLI/CLI.hpp>
#include <csignal>
#include <iostream>
#include <new>

#include "base/error.h"
#include "engine_cli/bus_error.h"

namespace tern::engine_cli {
namespace {

int Fail(ExitCode code, const std::string& message) {
  std::cerr << "error: " << message << "\n";
  return static_cast<int>(code);
}

}  // namespace

int RunMain(CLI::App& app, int argc, char** argv) {
  std::signal(
      SIGXFSZ,
      SIG_IGN);  // A file-size limit is a full disk: an error to report, not a reason to die.
  ReportTruncatedMappings();
  try {
    app.parse(argc, argv);
    std::cout.flush();
    if (!std::cout) return Fail(ExitCode::kResource, "standard output cannot be written");
    return static_cast<int>(ExitCode::kOk);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // Help or version, on stdout.
    return Fail(ExitCode::kUsage, StrCat(error.what(), " (--help shows the options)"));
  } catch (const Error& error) {
    return Fail(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return Fail(ExitCode::kResource,
                "out of memory; lower train.micro_batch, or take a smaller model");
  } catch (const std::exception& error) {
    return Fail(ExitCode::kBug, StrCat("unexpected: ", error.what(),
                                       " (a bug in tern; please report it with the command)"));
  }
}

}  // namespace tern::engine_cli
