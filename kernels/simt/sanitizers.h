// What ASan and TSan must be told about the emulator's fibers; empty functions in a plain build.
// Only for simt.cc, which is compiled without TSan instrumentation and therefore learns of TSan by
// TERN_SIMT_TSAN (kernels/CMakeLists.txt).
#pragma once

#include <cstddef>

#if defined(TERN_SIMT_TSAN)
#include <sanitizer/tsan_interface.h>
// Of libtsan, which declares them in no header.
extern "C" void AnnotateIgnoreReadsBegin(const char* file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char* file, int line);
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace tern::simt {

struct FiberMarks {
  void* tsan = nullptr;        // TSan's fiber.
  void* fake_stack = nullptr;  // ASan's.
};

struct SchedulerMarks {
  void* tsan = nullptr;
  void* fake_stack = nullptr;
  const void* stack = nullptr;  // Bounds of the scheduler's stack, as ASan reports them.
  size_t stack_bytes = 0;
};

// While it lives, TSan ignores this fiber's accesses, also those of malloc, free and memcmp, which
// it sees although the emulator's files are not instrumented.
class TsanIgnores {
 public:
#if defined(TERN_SIMT_TSAN)
  TsanIgnores() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__); }
  ~TsanIgnores() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
#else
  TsanIgnores() {}
  ~TsanIgnores() {}
#endif
  TsanIgnores(const TsanIgnores&) = delete;
  TsanIgnores& operator=(const TsanIgnores&) = delete;
};

#if defined(TERN_SIMT_TSAN)
inline void TsanAcquire(void* tag) { __tsan_acquire(tag); }
inline void TsanRelease(void* tag) { __tsan_release(tag); }
inline void CreateFiberMarks(FiberMarks& fiber) { fiber.tsan = __tsan_create_fiber(0); }
inline void StartScheduler(SchedulerMarks& scheduler) {
  scheduler.tsan = __tsan_get_current_fiber();
}
inline void TsanSwitch(void* fiber) {
  __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync);
}
#else
inline void TsanAcquire(void*) {}
inline void TsanRelease(void*) {}
inline void CreateFiberMarks(FiberMarks&) {}
inline void StartScheduler(SchedulerMarks&) {}
inline void TsanSwitch(void*) {}
#endif

#if defined(__SANITIZE_ADDRESS__)
inline void AsanStart(void** save, const void* stack, size_t bytes) {
  __sanitizer_start_switch_fiber(save, stack, bytes);
}
inline void AsanFinish(void* saved, const void** old_stack, size_t* old_bytes) {
  __sanitizer_finish_switch_fiber(saved, old_stack, old_bytes);
}
#else
inline void AsanStart(void**, const void*, size_t) {}
inline void AsanFinish(void*, const void**, size_t*) {}
#endif

inline void BeforeSwitchToFiber(FiberMarks& fiber, SchedulerMarks& scheduler, const void* stack,
                                size_t bytes) {
  AsanStart(&scheduler.fake_stack, stack, bytes);
  TsanSwitch(fiber.tsan);
}

inline void AfterSwitchToScheduler(SchedulerMarks& scheduler) {
  AsanFinish(scheduler.fake_stack, nullptr, nullptr);
}

// A fiber that ends gives its fake stack back (null).
inline void BeforeSwitchToScheduler(FiberMarks& fiber, SchedulerMarks& scheduler, bool ends) {
  AsanStart(ends ? nullptr : &fiber.fake_stack, scheduler.stack, scheduler.stack_bytes);
  TsanSwitch(scheduler.tsan);
}

inline void AfterFirstSwitchToFiber(SchedulerMarks& scheduler) {
  AsanFinish(nullptr, &scheduler.stack, &scheduler.stack_bytes);
}

inline void AfterSwitchToFiber(FiberMarks& fiber, SchedulerMarks& scheduler) {
  AsanFinish(fiber.fake_stack, &scheduler.stack, &scheduler.stack_bytes);
}

}  // namespace tern::simt
