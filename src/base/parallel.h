// How the deploy half and the kernels run loops on several threads without owning the threads: the
// caller passes a runner (libtorch's pool in the trainer, ThreadPool in the engine), so that one
// process never has two pools at work.
#pragma once

#include <cstdint>
#include <functional>

namespace tern {

// Body of a parallel loop: works on [begin, end).
using RangeBody = std::function<void(int64_t begin, int64_t end)>;

// Calls body on disjoint ranges that cover [0, n), each at least `grain` long (but the last), and
// returns when all are done. REQUIRES: the body's result must not depend on how the ranges are cut.
using ParallelFor = std::function<void(int64_t n, int64_t grain, const RangeBody& body)>;

// Runs everything in the calling thread.
inline void SerialFor(int64_t n, int64_t /*grain*/, const RangeBody& body) {
  if (n > 0) body(0, n);
}

}  // namespace tern
