// A file that another program cuts short while it is mapped: reading beyond its new end raises
// SIGBUS, for which there is no return code and no exception.
#pragma once

namespace tern::engine_cli {

// From now on such a SIGBUS ends the process with one line on stderr and the exit code of a lost
// resource (5). Other kinds of SIGBUS (broken memory, misaligned access) stay what they are. The
// handler does nothing but write and leave, so it is safe wherever it strikes; half-written files
// have their temporary names then, as after a kill.
void ReportTruncatedMappings();

}  // namespace tern::engine_cli
