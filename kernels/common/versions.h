// How a dispatcher finds the version of an operation: TERN_ACTIVE(Op) is the function OpRef,
// OpNeon, OpAvx2 or OpAvx512 of the active instruction set, TERN_ACTIVE_VNNI(Op) also OpAvxVnni
// (elsewhere that set takes OpAvx2). Macros, because only the versions of the processor that is
// compiled for exist: another name must not reach the linker. All versions have one signature.
#pragma once

#include "kernels/common/isa.h"

namespace tern::kernels {

#if defined(__x86_64__)
template <class Function>
Function* PickVersion(Function* ref, Function* avx2, Function* avx_vnni, Function* avx512) {
  switch (ActiveIsa()) {
    case Isa::kScalar:
    case Isa::kNeon:
      return ref;
    case Isa::kAvx2:
      return avx2;
    case Isa::kAvxVnni:
      return avx_vnni;
    case Isa::kAvx512:
      return avx512;
  }
  return ref;
}
#define TERN_ACTIVE(op) PickVersion(op##Ref, op##Avx2, op##Avx2, op##Avx512)
#define TERN_ACTIVE_VNNI(op) PickVersion(op##Ref, op##Avx2, op##AvxVnni, op##Avx512)
#elif defined(__aarch64__)
#define TERN_ACTIVE(op) (ActiveIsa() == Isa::kNeon ? op##Neon : op##Ref)
#define TERN_ACTIVE_VNNI(op) TERN_ACTIVE(op)
#else
#define TERN_ACTIVE(op) op##Ref
#define TERN_ACTIVE_VNNI(op) op##Ref
#endif

}  // namespace tern::kernels
