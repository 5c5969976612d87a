// See run_main.h.
#include "engine_cli/run_main.h"

#include <CLI/CLI.hpp>
#include <cctype>
#include <csignal>
#include <iomanip>
#include <iostream>
#include <new>
#include <sstream>

#include "base/error.h"
#include "engine_cli/bus_error.h"

namespace tern::engine_cli {
namespace {

// Names and texts of a file may be in a message: a terminal must not obey them.
std::string Printable(const std::string& message) {
  std::ostringstream out;
  for (const char c : message) {
    if (std::iscntrl(static_cast<unsigned char>(c)) && c != '\n' && c != '\t') {
      out << "\\x" << std::hex << std::setw(2) << std::setfill('0') << static_cast<int>(c);
    } else {
      out << c;
    }
  }
  return out.str();
}

int Fail(ExitCode code, const std::string& message) {
  std::cerr << "error: " << Printable(message) << "\n";
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
                "out of memory; take a smaller model, batch or context (of a recipe: "
                "train.micro_batch)");
  } catch (const std::exception& error) {
    return Fail(ExitCode::kBug, StrCat("unexpected: ", error.what(),
                                       " (a bug in tern; please report it with the command)"));
  }
}

}  // namespace tern::engine_cli
