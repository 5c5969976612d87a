// Which instruction set the kernels use. Picked once from the processor; the environment variable
// TERN_ISA (scalar | avx2 | avx512) forces a lower one, and SetActiveIsa does so from code, so that
// tests reach every path of the machine. Thread-safe.
#pragma once

#include <string_view>
#include <vector>

namespace tern::kernels {

enum class Isa {
  kScalar,
  kAvx2,    // AVX2 + FMA + F16C
  kAvx512,  // AVX-512 F/BW/VL/DQ + VNNI
};

// Best set that this processor (and its operating system) has.
Isa BestIsa();
// Every set that this processor has, kScalar first.
std::vector<Isa> AvailableIsas();
// BestIsa(), or what TERN_ISA said at the first call, or what SetActiveIsa said last. Throws
// UsageError for an unknown name or a set that this processor lacks.
Isa ActiveIsa();
// Switches every kernel to `isa` from now on: for tests and benchmarks. Throws UsageError when the
// processor lacks it.
void SetActiveIsa(Isa isa);
std::string_view ToString(Isa isa);

}  // namespace tern::kernels
