// Ranks as threads of one process: each has a Group of its own, and they talk through Gloo as
// processes do.
#pragma once

#include <ATen/Parallel.h>

#include <atomic>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include "parallel/group.h"
#include "parallel/store.h"

namespace tern::parallel {

inline Topology ThreadTopology(const StoreServer& store, int rank, int ranks) {
  Topology t;
  t.rank = t.local_rank = rank;
  t.world = t.local_world = ranks;
  t.store_host = "127.0.0.1";
  t.store_port = store.port();
  t.store_is_launchers = true;
  // Runs in one process use one store each, so that keys never meet.
  return t;
}

// Runs `body` on each rank; throws what the first rank that threw has thrown.
inline void RunRankThreads(int ranks, const std::function<void(Group&)>& body,
                           const GroupOptions& options = {}) {
  const StoreServer store;
  std::vector<std::exception_ptr> failures(static_cast<size_t>(ranks));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        at::set_num_threads(1);  // Of this thread's pool
        Group group(ThreadTopology(store, rank, ranks), options);
        body(group);
      } catch (...) {
        failures[static_cast<size_t>(rank)] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}  // namespace tern::parallel
