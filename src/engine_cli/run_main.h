// The shared frame of both programs: parse, run the verb, turn errors into one line on stderr and
// an exit code.
#pragma once

namespace CLI {
class App;
}

namespace tern::engine_cli {

// 0 done or help; otherwise the exit code of the error's type (base/error.h): 2 for a wrong call, 5
// out of memory, 1 for anything that is not a tern error.
int RunMain(CLI::App& app, int argc, char** argv);

}  // namespace tern::engine_cli
