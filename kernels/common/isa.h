// Which instruction set the kernels use. Picked once from the processor; the environment variable
// TERN_ISA (scalar | neon | avx2 | avxvnni | avx512) forces another one that it has, and
// SetActiveIsa does so from code, so that tests reach every path of the machine. Thread-safe.
// How a dispatcher finds its version: versions.h.
#pragma once

#include <string_view>
#include <vector>

namespace tern::kernels {

enum class Isa {
  kScalar,
  kNeon,     // ARMv8 with the dot product of bytes (asimddp)
  kAvx2,     // AVX2 + FMA + F16C
  kAvxVnni,  // AVX2 with the dot product of bytes (AVX-VNNI, 256 bits)
  kAvx512,   // AVX-512 F/BW/VL/DQ + VNNI
};

// Every set that this processor (and its operating system) has, from kScalar to the best.
std::vector<Isa> AvailableIsas();
Isa BestIsa();
// BestIsa(), or what TERN_ISA said at the first call, or what SetActiveIsa said last. Throws
// UsageError for an unknown name or a set that this processor lacks.
Isa ActiveIsa();
// Switches every kernel to `isa` from now on: for tests and benchmarks. Throws UsageError when the
// processor lacks it.
void SetActiveIsa(Isa isa);
std::string_view ToString(Isa isa);

}  // namespace tern::kernels
