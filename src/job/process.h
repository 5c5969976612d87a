// Runs another program and waits for it; its output goes to stderr.
#pragma once

#include <string>
#include <vector>

namespace tern::job {

// Throws InputError when the program is missing, ResourceError when it fails, with its name and
// exit status.
void RunProcess(const std::vector<std::string>& command);

}  // namespace tern::job
