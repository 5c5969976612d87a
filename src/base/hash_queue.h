// SHA-256 beside other work: one thread hashes parts of streams in the order in which they were
// added, while the caller goes on to read and write what follows. What waits is bounded, so a
// caller that is faster than the hash stands still instead of taking memory.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>

namespace tern {

class HashQueue {
 public:
  // At most max_waiting_bytes wait, or one part if it alone is larger. Throws ResourceError when
  // the system gives no thread.
  explicit HashQueue(size_t max_waiting_bytes);
  // Forgets what waits; the hashes of streams that have not ended never come.
  ~HashQueue();
  HashQueue(const HashQueue&) = delete;
  HashQueue& operator=(const HashQueue&) = delete;

  // The next part of the current stream. `done`, if any, is called on the queue's thread once the
  // bytes are hashed, which must live until then; it must not throw.
  void Add(std::span<const std::byte> bytes, std::function<void()> done = nullptr);
  // Ends the current stream and begins the next one. Its hash as lower-case hex.
  std::future<std::string> End();
  // Returns when all that was added is hashed.
  void Wait();

 private:
  struct Item {
    std::span<const std::byte> bytes;
    std::function<void()> done;
    std::optional<std::promise<std::string>> end = {};  // The end of a stream, not a part
  };

  void Loop();
  void Push(Item item);

  const size_t max_waiting_bytes_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> items_;    // Guarded by mutex_; the first one is the one that is hashed
  size_t waiting_bytes_ = 0;  // Of items_
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace tern
