// Hashes of several streams on one thread: those of the same bytes in one piece, whatever the
// parts; parts are handed back in order, and what waits is bounded.
#include "base/hash_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <string>
#include <vector>

#include "base/sha256.h"

namespace tern {
namespace {

std::span<const std::byte> BytesOf(const std::string& text) {
  return std::as_bytes(std::span(text));
}

TEST(HashQueueTest, StreamsGiveTheHashOfTheirBytes) {
  HashQueue queue(100);
  const std::string text = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                    large(1000, 'x');
  std::vector<std::future<std::string>> hashes;
  for (const size_t part : {size_t{1}, size_t{7}, size_t{200}}) {
    for (const std::string* of : {&text, &large}) {
      for (size_t at = 0; at < of->size(); at += part)
        queue.Add(BytesOf(*of).subspan(at, std::min(part, of->size() - at)));
      hashes.push_back(queue.End());
    }
  }
  hashes.push_back(queue.End());  // Of nothing
  for (size_t i = 0; i + 1 < hashes.size(); i += 2) {
    EXPECT_EQ(hashes[i].get(), Sha256Hex(text)) << i;
    EXPECT_EQ(hashes[i + 1].get(), Sha256Hex(large)) << i;
  }
  EXPECT_EQ(hashes.back().get(), Sha256Hex(""));
}

TEST(HashQueueTest, PartsComeBackInOrderAndWaitEndsBehindTheLast) {
  HashQueue queue(64);
  const std::string text(32, 'y');
  std::vector<int> done;  // Only the queue's thread touches it, until Wait
  for (int i = 0; i < 20; ++i) queue.Add(BytesOf(text), [&done, i] { done.push_back(i); });
  queue.Wait();
  ASSERT_EQ(done.size(), 20u);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(done[static_cast<size_t>(i)], i);
}

// The caller stands still while as much waits as may; one part that is larger goes alone.
TEST(HashQueueTest, WhatWaitsIsBounded) {
  HashQueue queue(64);
  const std::string part(32, 'z'), larger(100, 'z');
  std::promise<void> go;
  std::atomic<int> added = 0, done = 0;
  std::atomic<int> most = 0;
  queue.Add(BytesOf(part), [&] {
    go.get_future().wait();
    ++done;
  });
  std::future<void> caller = std::async(std::launch::async, [&] {
    for (int i = 0; i < 10; ++i) {
      queue.Add(BytesOf(i == 5 ? larger : part), [&] { ++done; });
      ++added;
      most = std::max(most.load(), added + 1 - done);
    }
  });
  while (added == 0) std::this_thread::yield();
  EXPECT_LE(added, 1);  // 64 bytes wait: the first part, which is not done, and one more
  go.set_value();
  caller.get();
  queue.Wait();
  EXPECT_EQ(done, 11);
  EXPECT_LE(most, 3);  // One more may be done between the two counts
}

// What waits is forgotten: an import that fails does not hash on.
TEST(HashQueueTest, EndsWithWorkLeft) {
  const std::string text(1 << 20, 'w');
  std::promise<void> begun;
  std::atomic<int> done = 0;
  {
    HashQueue queue(64 << 20);
    queue.Add(BytesOf(text), [&] {
      begun.set_value();
      ++done;
    });
    begun.get_future().wait();
    for (int i = 0; i < 40; ++i) queue.Add(BytesOf(text), [&] { ++done; });
  }
  EXPECT_LT(done, 41);
}

}  // namespace
}  // namespace tern
