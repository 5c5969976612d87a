// Runs another program and takes what it prints.
#pragma once

#include <string>
#include <vector>

namespace tern {

// Runs `command` (the program's path, then its arguments; no shell) and returns its standard
// output; its standard error goes to ours. Throws InputError when the program cannot be started or
// ends with a code that is not 0.
std::string RunProgram(const std::vector<std::string>& command);

}  // namespace tern
