// See liveness.h. Keys: beat/<rank> counts up; failed/<rank> is a reason; left/<rank> is set at an
// orderly end; lost is rank 0's verdict.
#include "parallel/liveness.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "base/error.h"
#include "base/log.h"

namespace tern::parallel {
namespace {

using Clock = std::chrono::steady_clock;

std::string Key(const char* kind, int rank) { return StrCat(kind, "/", rank); }

}  // namespace

struct Liveness::Impl {
  c10::intrusive_ptr<c10d::Store> store;      // The main thread's
  c10::intrusive_ptr<c10d::Store> own_store;  // The watching thread's: a connection of its own
  int rank, size;
  LivenessOptions options;
  std::mutex mutex;
  std::condition_variable wake;
  bool stopping = false;  // Guarded by mutex
  std::thread thread;

  // Waits for a beat's time; false: the object is going away.
  bool Sleep() {
    std::unique_lock lock(mutex);
    return !wake.wait_for(lock, std::chrono::duration<double>(options.beat_s),
                          [this] { return stopping; });
  }
  void Watch();
  std::string Reason(int lost) const;
  void Report(const std::string& message);
};

std::string Liveness::Impl::Reason(int lost) const {
  const std::string key = Key("failed", lost);
  if (own_store->check({key})) {
    return StrCat("rank ", lost, " failed: ", own_store->get_to_str(key));
  }
  return StrCat("rank ", lost, " (", own_store->get_to_str(Key("where", lost)),
                ") has given no sign of life for ", options.lost_s,
                " s: killed, stopped or cut off");
}

void Liveness::Impl::Report(const std::string& message) {
  if (options.on_lost) options.on_lost(message);
}

void Liveness::Impl::Watch() {
  std::vector<int> watched;
  for (int i = 0; i < size; ++i) {
    if (i != rank && (rank == 0 || i == 0)) watched.push_back(i);
  }
  std::vector<int64_t> counts(watched.size(), 0);
  std::vector<Clock::time_point> seen(watched.size(), Clock::now());
  Clock::time_point answered = Clock::now();
  while (Sleep()) {
    try {
      own_store->add(Key("beat", rank), 1);
      for (size_t i = 0; i < watched.size(); ++i) {
        const int64_t count = own_store->add(Key("beat", watched[i]), 0);
        const Clock::time_point now = Clock::now();
        // A pause of this process itself (a suspended machine) must not count against others.
        const bool paused = now - answered > std::chrono::duration<double>(5 * options.beat_s);
        if (count != counts[i] || paused) seen[i] = now;
        counts[i] = count;
        if (now - seen[i] < std::chrono::duration<double>(options.lost_s)) continue;
        if (own_store->check({Key("left", watched[i])})) continue;
        const std::string message = Reason(watched[i]);
        if (rank == 0) own_store->set("lost", message);
        Report(message);
        return;
      }
      if (rank != 0 && own_store->check({"lost"})) {
        Report(own_store->get_to_str("lost"));
        return;
      }
      answered = Clock::now();
    } catch (const std::exception& error) {
      // The store is gone. At an orderly end its server may leave first: the main thread decides,
      // unless it hangs.
      if (!Sleep()) return;
      if (Clock::now() - answered < std::chrono::duration<double>(options.lost_s)) continue;
      Report(
          StrCat("the ranks' meeting point does not answer any more (rank 0 or the launcher is "
                 "lost): ",
                 std::string(error.what()).substr(0, 200)));
      return;
    }
  }
}

Liveness::Liveness(c10::intrusive_ptr<c10d::Store> store, int rank, int size,
                   const LivenessOptions& options)
    : impl_(std::make_unique<Impl>()) {
  impl_->store = store;
  impl_->own_store = store->clone();
  impl_->rank = rank;
  impl_->size = size;
  impl_->options = options;
  impl_->thread = std::thread([this] { impl_->Watch(); });
}

Liveness::~Liveness() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->wake.notify_all();
  impl_->thread.join();
}

void Liveness::PostFailure(const std::string& reason) {
  try {
    impl_->store->set(Key("failed", impl_->rank), reason);
  } catch (const std::exception& error) {
    LogWarn("rank ", impl_->rank, " cannot tell the others why it failed: ", error.what());
  }
}

void Liveness::Leave() {
  try {
    impl_->store->set(Key("left", impl_->rank), "1");
  } catch (const std::exception& error) {
    LogDebug("rank ", impl_->rank, " left without a word: ", error.what());
  }
}

void Liveness::WaitForOthersToLeave(double timeout_s) const {
  const auto end = Clock::now() + std::chrono::duration<double>(timeout_s);
  try {
    for (int i = 0; i < impl_->size; ++i) {
      while (!impl_->store->check({Key("left", i)}) && Clock::now() < end) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
    }
  } catch (const std::exception& error) {
    LogDebug("waiting for the other ranks to leave: ", error.what());
  }
}

std::string Liveness::FindCause() const {
  const Impl& me = *impl_;
  std::vector<int64_t> before;
  std::string silent, left;
  try {
    for (int i = 0; i < me.size; ++i) before.push_back(me.store->add(Key("beat", i), 0));
    const auto end = Clock::now() + std::chrono::duration<double>(3 * me.options.beat_s);
    do {
      for (int i = 0; i < me.size; ++i) {
        if (i == me.rank || !me.store->check({Key("failed", i)})) continue;
        return StrCat("rank ", i, " failed: ", me.store->get_to_str(Key("failed", i)));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    } while (Clock::now() < end);
    for (int i = 0; i < me.size; ++i) {
      if (i == me.rank || me.store->add(Key("beat", i), 0) != before[static_cast<size_t>(i)])
        continue;
      const std::string who = StrCat("rank ", i, " (", me.store->get_to_str(Key("where", i)), ")");
      if (me.store->check({Key("left", i)})) {
        if (left.empty()) left = who + " has left: it gave up waiting for another rank";
      } else if (silent.empty()) {
        silent = who + " gives no sign of life: killed, stopped or cut off";
      }
    }
  } catch (const std::exception& error) {
    return StrCat(
        "the ranks' meeting point does not answer any more (rank 0 or the launcher is "
        "lost): ",
        std::string(error.what()).substr(0, 200));
  }
  return silent.empty() ? left : silent;
}

}  // namespace tern::parallel
