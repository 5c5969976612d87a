// A fixed team of threads for data-parallel loops, used by the engine; the trainer passes
// libtorch's pool instead (see parallel.h). Waiting threads spin for some microseconds and then
// sleep on a futex, so that the many short loops of decoding start quickly and an idle pool costs
// nothing. Ranges are cut the same way on every call: no work stealing.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "base/parallel.h"

namespace tern {

class ThreadPool {
 public:
  // Starts num_threads - 1 threads; the caller of For is the last one. num_threads < 1: one for
  // each processor. Throws ResourceError when the system gives no more threads.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // ParallelFor of parallel.h: range i is [i * size, (i + 1) * size) with size = max(grain, n /
  // threads rounded up). A call from inside a body runs in that thread alone; calls from several
  // threads take turns. Rethrows an exception of the body after all ranges have ended (the one of
  // the lowest range).
  void For(int64_t n, int64_t grain, const RangeBody& body);

  // For, as the callable that kernels take. REQUIRES: the pool outlives it.
  ParallelFor Runner() {
    return [this](int64_t n, int64_t grain, const RangeBody& body) { For(n, grain, body); };
  }

 private:
  struct Job {
    const RangeBody* body = nullptr;
    int64_t n = 0;
    int64_t range = 0;  // Elements of each range but the last.
  };

  void WorkerLoop(int index);
  void Stop();
  void RunRange(int index);

  Job job_;                                     // Written only while every worker waits.
  std::vector<std::exception_ptr> exceptions_;  // One a thread.
  std::mutex caller_mutex_;
  alignas(64) std::atomic<uint32_t> epoch_{0};    // Counts jobs; workers wait for it to move.
  alignas(64) std::atomic<uint32_t> pending_{0};  // Workers that have not finished the job yet.
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace tern
