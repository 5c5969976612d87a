// See trim_heap.h.
#include "base/trim_heap.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace tern {

void TrimHeap() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

}  // namespace tern
