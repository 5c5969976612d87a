// See threads.h.
#include "cli/threads.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <malloc.h>
#include <sched.h>

namespace tern::cli {
namespace {

int64_t UsableProcessors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

void KeepFreedBelow(int bytes) {
  mallopt(M_MMAP_THRESHOLD, bytes);
  mallopt(M_TRIM_THRESHOLD, bytes);
}

// MKL finds the kernel of a function of vectors when it is first called. Where the first call comes
// from several threads, one of them may run a kernel of low precision for its part of it, a
// thousand last bits off, once in ten runs here (pytorch/pytorch#188792, MKL 2024.2). So each
// function is called by one thread first: one element is not divided.
void ResolveVectorMath() {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const at::Tensor one = at::ones({1}, type);
    for (at::Tensor (*function)(const at::Tensor&) :
         {at::exp, at::expm1, at::log, at::log1p, at::log2, at::log10, at::sqrt, at::sin, at::cos,
          at::tan, at::asin, at::acos, at::atan, at::tanh, at::erf, at::erfc, at::erfinv,
          at::lgamma})
      function(one);
  }
}

}  // namespace

void GiveBackLargeBlocks() { KeepFreedBelow(16 << 20); }

void SetThreads(int64_t threads) {
  KeepFreedBelow(1 << 30);
  at::set_num_threads(static_cast<int>(threads > 0 ? threads : UsableProcessors()));
  ResolveVectorMath();
}

}  // namespace tern::cli
