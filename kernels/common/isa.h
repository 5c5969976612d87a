// Which instruction set the kernels use. Picked once from the processor; the environment variable TERN_ISA
// (scalar | avx2 | avx512) forces a lower one, so that tests reach every path of the machine.
#pragma once

#include <string_view>

namespace tern::kernels {

enum class Isa {
  kScalar,
  kAvx2,       // AVX2 + FMA + F16C
  kAvx512,     // AVX-512 F/BW/VL/DQ + VNNI + BF16
};

// Best set that this processor has.
Isa BestIsa();
// BestIsa(), or what TERN_ISA says. Throws UsageError for an unknown name or a set that this processor lacks.
Isa ActiveIsa();
std::string_view ToString(Isa isa);

}  // namespace tern::kernels
