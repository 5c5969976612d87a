// See run_main.h.
#include "engine_cli/run_main.h"

#include <CLI/CLI.hpp>
#include <csignal>
#include <iostream>
#include <new>

#include "base/error.h"

namespace tern::engine_cli {

int RunMain(CLI::App& app, int argc, char** argv) {
  std::signal(
      SIGXFSZ,
      SIG_IGN);  // A file-size limit is a full disk: an error to report, not a reason to die.
  try {
    app.parse(argc, argv);
    return static_cast<int>(ExitCode::kOk);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? static_cast<int>(ExitCode::kOk)
                                : static_cast<int>(ExitCode::kUsage);
  } catch (const Error& error) {
    std::cerr << "error: " << error.what() << "\n";
    return static_cast<int>(error.code());
  } catch (const std::bad_alloc&) {
    std::cerr << "error: out of memory; lower train.micro_batch, or take a smaller model\n";
    return static_cast<int>(ExitCode::kResource);
  } catch (const std::exception& error) {
    std::cerr << "error: unexpected: " << error.what()
              << "\nThis is a bug in tern; please report it with the command.\n";
    return static_cast<int>(ExitCode::kBug);
  }
}

}  // namespace tern::engine_cli
