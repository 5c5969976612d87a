// Detection of the instruction set: on x86-64 by the compiler's own cpuid tables (they also ask the
// operating system whether the wide registers are saved), on AArch64 by what Linux says of the
// processor; and the choice made with TERN_ISA.
#include "kernels/common/isa.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <string>

#include "base/error.h"

namespace tern::kernels {
namespace {

constexpr int kUnset = -1;
std::atomic<int> active_isa{kUnset};

constexpr Isa kAllIsas[] = {Isa::kScalar, Isa::kNeon, Isa::kAvx2, Isa::kAvxVnni, Isa::kAvx512};

bool Has(Isa isa) {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  switch (isa) {
    case Isa::kScalar:
      return true;
    case Isa::kNeon:
      return false;
    case Isa::kAvx2:
      return avx2;
    case Isa::kAvxVnni:
      return avx2 && __builtin_cpu_supports("avxvnni");
    case Isa::kAvx512:
      return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vnni");
  }
#elif defined(__aarch64__)
  constexpr unsigned long kAsimdDp = 1ul << 20;  // HWCAP_ASIMDDP of Linux
  if (isa == Isa::kNeon) return (getauxval(AT_HWCAP) & kAsimdDp) != 0;
#endif
  return isa == Isa::kScalar;
}

std::string Names(const std::vector<Isa>& isas) {
  std::string names;
  for (Isa isa : isas) names += StrCat(names.empty() ? "" : ", ", ToString(isa));
  return names;
}

void CheckAvailable(Isa isa, std::string_view origin) {
  if (Has(isa)) return;
  throw UsageError(StrCat(origin, " asks for ", ToString(isa), ", but this processor has ",
                          Names(AvailableIsas()), ". Use one of these."));
}

Isa FromEnvironment() {
  const char* text = std::getenv("TERN_ISA");
  if (text == nullptr || *text == '\0') return BestIsa();
  for (Isa isa : kAllIsas) {
    if (ToString(isa) == text) {
      CheckAvailable(isa, "TERN_ISA");
      return isa;
    }
  }
  throw UsageError(StrCat("TERN_ISA is \"", text, "\"; want one of ", Names(AvailableIsas()),
                          ", or leave it unset."));
}

}  // namespace

std::vector<Isa> AvailableIsas() {
  std::vector<Isa> isas;
  std::copy_if(std::begin(kAllIsas), std::end(kAllIsas), std::back_inserter(isas), Has);
  return isas;
}

Isa BestIsa() { return AvailableIsas().back(); }

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
    case Isa::kNeon:
      return "neon";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvxVnni:
      return "avxvnni";
    case Isa::kAvx512:
      return "avx512";
  }
  return "unknown";
}

}  // namespace tern::kernels
