// The pool's hand-over: the caller publishes a job by moving the epoch (release), every worker runs
// its own range and counts `pending_` down (release), the caller waits for zero (acquire). Every
// worker answers every job, so a job is never read after its end.
#include "base/thread_pool.h"

#include <algorithm>
#include <system_error>

#include "base/error.h"

namespace tern {
namespace {

// Some 20 to 50 microseconds: longer than the gap between two kernels of a decoding step. Every so
// often the spinning thread offers its processor: on a busy machine the one it waits for may be
// queued on the same processor.
constexpr int kSpins = 1500;
constexpr int kSpinsPerYield = 50;

thread_local bool inside_body = false;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Returns when `value` differs from `old`: spins first, then sleeps.
void WaitWhileEqual(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    if (i % kSpinsPerYield == kSpinsPerYield - 1) {
      std::this_thread::yield();
    } else {
      Pause();
    }
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  if (num_threads < 1)
    num_threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  exceptions_.resize(static_cast<size_t>(num_threads));
  workers_.reserve(static_cast<size_t>(num_threads - 1));
  for (int i = 1; i < num_threads; ++i) {
    try {
      workers_.emplace_back([this, i] { WorkerLoop(i); });
    } catch (const std::system_error& error) {
      Stop();
      throw ResourceError(StrCat("cannot start thread ", i + 1, " of ", num_threads, ": ",
                                 error.what(), "; want fewer threads"));
    }
  }
}

ThreadPool::~ThreadPool() { Stop(); }

void ThreadPool::Stop() {
  stop_.store(true, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::RunRange(int index) {
  const int64_t begin = index * job_.range;
  if (begin >= job_.n) return;
  try {
    (*job_.body)(begin, std::min(job_.n, begin + job_.range));
  } catch (...) {
    exceptions_[static_cast<size_t>(index)] = std::current_exception();
  }
}

void ThreadPool::WorkerLoop(int index) {
  inside_body = true;
  for (uint32_t seen = 0;; ++seen) {
    WaitWhileEqual(epoch_, seen);
    if (stop_.load(std::memory_order_relaxed)) return;
    RunRange(index);
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
  }
}

void ThreadPool::For(int64_t n, int64_t grain, const RangeBody& body) {
  if (n <= 0) return;
  const int64_t threads = num_threads();
  const int64_t range = std::max({grain, int64_t{1}, (n + threads - 1) / threads});
  if (range >= n || inside_body) {
    body(0, n);
    return;
  }
  std::lock_guard lock(caller_mutex_);
  job_ = {&body, n, range};
  pending_.store(static_cast<uint32_t>(workers_.size()), std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  inside_body = true;
  RunRange(0);
  inside_body = false;
  for (uint32_t left; (left = pending_.load(std::memory_order_acquire)) != 0;)
    WaitWhileEqual(pending_, left);
  std::exception_ptr first;
  for (std::exception_ptr& exception : exceptions_) {
    if (exception && !first) first = exception;
    exception = nullptr;
  }
  if (first) std::rethrow_exception(first);
}

}  // namespace tern
