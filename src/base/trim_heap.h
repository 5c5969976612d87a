// Memory that was freed and that the C library keeps, back to the system.
#pragma once

namespace tern {

// Takes milliseconds; for turning points between two stages of a job that runs under a limit. Does
// nothing where the C library cannot.
void TrimHeap();

}  // namespace tern
