// Detection of the instruction set by the compiler's own cpuid tables (they also ask the operating
// system whether the wide registers are saved), and the choice made with TERN_ISA.
#include "kernels/common/isa.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "base/error.h"

namespace tern::kernels {
namespace {

constexpr int kUnset = -1;
std::atomic<int> active_isa{kUnset};

void CheckAvailable(Isa isa, std::string_view origin) {
  if (static_cast<int>(isa) > static_cast<int>(BestIsa())) {
    throw UsageError(StrCat(origin, " asks for ", ToString(isa),
                            ", but this processor has at most ", ToString(BestIsa()),
                            ". Use that or a lower one."));
  }
}

Isa FromEnvironment() {
  const char* text = std::getenv("TERN_ISA");
  if (text == nullptr || *text == '\0') return BestIsa();
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (ToString(isa) == text) {
      CheckAvailable(isa, "TERN_ISA");
      return isa;
    }
  }
  throw UsageError(
      StrCat("TERN_ISA is \"", text, "\"; want scalar, avx2 or avx512, or leave it unset."));
}

}  // namespace

Isa BestIsa() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vnni");
  if (avx2 && avx512) return Isa::kAvx512;
  if (avx2) return Isa::kAvx2;
#endif
  return Isa::kScalar;
}

std::vector<Isa> AvailableIsas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (static_cast<int>(isa) <= static_cast<int>(BestIsa())) isas.push_back(isa);
  }
  return isas;
}

Isa ActiveIsa() {
  int isa = active_isa.load(std::memory_order_relaxed);
  if (isa == kUnset) {
    isa = static_cast<int>(FromEnvironment());
    active_isa.store(isa, std::memory_order_relaxed);
  }
  return static_cast<Isa>(isa);
}

void SetActiveIsa(Isa isa) {
  CheckAvailable(isa, "SetActiveIsa");
  active_isa.store(static_cast<int>(isa), std::memory_order_relaxed);
}

std::string_view ToString(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
  }
  return "unknown";
}

}  // namespace tern::kernels
