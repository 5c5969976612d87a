// ThreadPool: covers every index once, honours the grain, nests, takes turns, passes exceptions on,
// and starts and stops cleanly. Also run under ThreadSanitizer (preset tsan).
#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace tern {
namespace {

TEST(ThreadPoolTest, CoversEveryIndexOnce) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.num_threads(), threads);
    for (int64_t n : {0, 1, 2, 3, 7, 8, 9, 1000, 100003}) {
      for (int64_t grain : {0, 1, 5, 2000}) {
        std::vector<int> hits(static_cast<size_t>(n), 0);
        pool.For(n, grain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
        });
        EXPECT_EQ(std::count(hits.begin(), hits.end(), 1), n) << threads << " threads, n " << n;
      }
    }
  }
}

TEST(ThreadPoolTest, RangesAreAtLeastTheGrainButTheLast) {
  ThreadPool pool(4);
  std::mutex mutex;
  std::vector<std::pair<int64_t, int64_t>> ranges;
  pool.For(10, 4, [&](int64_t begin, int64_t end) {
    std::lock_guard lock(mutex);
    ranges.emplace_back(begin, end);
  });
  std::sort(ranges.begin(), ranges.end());
  EXPECT_EQ(ranges, (std::vector<std::pair<int64_t, int64_t>>{{0, 4}, {4, 8}, {8, 10}}));
}

TEST(ThreadPoolTest, ManyShortLoopsInARow) {
  ThreadPool pool(3);
  const ParallelFor parallel = pool.Runner();
  std::vector<int64_t> values(64, 0);
  for (int round = 0; round < 5000; ++round) {
    parallel(64, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) values[static_cast<size_t>(i)] += i;
    });
  }
  for (int64_t i = 0; i < 64; ++i) EXPECT_EQ(values[static_cast<size_t>(i)], 5000 * i);
}

TEST(ThreadPoolTest, NestedLoopsRunInTheirThread) {
  ThreadPool pool(2);
  std::atomic<int64_t> sum{0};
  pool.For(4, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      pool.For(10, 1, [&](int64_t b, int64_t e) { sum += e - b; });
    }
  });
  EXPECT_EQ(sum, 40);
}

TEST(ThreadPoolTest, CallersTakeTurns) {
  ThreadPool pool(2);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        pool.For(6, 1, [&](int64_t begin, int64_t end) { sum += end - begin; });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 3 * 200 * 6);
}

TEST(ThreadPoolTest, ExceptionsReachTheCallerAndThePoolGoesOn) {
  ThreadPool pool(4);
  for (int64_t bad : {0, 5, 7}) {
    EXPECT_THROW(pool.For(8, 1,
                          [&](int64_t begin, int64_t end) {
                            if (begin <= bad && bad < end) throw std::runtime_error("bad index");
                          }),
                 std::runtime_error);
  }
  std::atomic<int64_t> sum{0};
  pool.For(8, 1, [&](int64_t begin, int64_t end) { sum += end - begin; });
  EXPECT_EQ(sum, 8);
}

TEST(ThreadPoolTest, StartsAndStopsWithoutWork) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(4);
  EXPECT_GE(ThreadPool(0).num_threads(), 1);
}

}  // namespace
}  // namespace tern
