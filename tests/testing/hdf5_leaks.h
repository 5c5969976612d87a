// For one file of a test program that opens damaged HDF5 files: the library's own error paths leak.
// Only memory that the library allocated and lost is excused.
#pragma once

extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5"; }
