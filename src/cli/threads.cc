// See threads.h.
#include "cli/threads.h"

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

}  // namespace

void GiveBackLargeBlocks() { KeepFreedBelow(16 << 20); }

void SetThreads(int64_t threads) {
  KeepFreedBelow(1 << 30);
  at::set_num_threads(static_cast<int>(threads > 0 ? threads : UsableProcessors()));
}

}  // namespace tern::cli
