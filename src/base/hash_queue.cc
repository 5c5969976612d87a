// See hash_queue.h.
#include "base/hash_queue.h"

#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/sha256.h"

namespace tern {

HashQueue::HashQueue(size_t max_waiting_bytes) : max_waiting_bytes_(max_waiting_bytes) {
  try {
    thread_ = std::thread([this] { Loop(); });
  } catch (const std::system_error& error) {
    throw ResourceError(StrCat("cannot start a thread: ", error.what()));
  }
}

HashQueue::~HashQueue() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void HashQueue::Push(Item item) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] {
    return items_.empty() || waiting_bytes_ + item.bytes.size() <= max_waiting_bytes_;
  });
  waiting_bytes_ += item.bytes.size();
  items_.push_back(std::move(item));
  lock.unlock();
  changed_.notify_all();
}

void HashQueue::Add(std::span<const std::byte> bytes, std::function<void()> done) {
  Push({bytes, std::move(done)});
}

std::future<std::string> HashQueue::End() {
  Item item;
  std::future<std::string> hash = item.end.emplace().get_future();
  Push(std::move(item));
  return hash;
}

void HashQueue::Wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return items_.empty(); });
}

void HashQueue::Loop() {
  std::optional<Sha256> hash(std::in_place);
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || !items_.empty(); });
    if (stop_) return;
    Item& item = items_.front();  // A deque's elements stay where they are while others are added
    lock.unlock();
    hash->Update(item.bytes.data(), item.bytes.size());
    if (item.done) item.done();
    if (item.end) {
      item.end->set_value(hash->HexDigest());
      hash.emplace();
    }
    lock.lock();
    waiting_bytes_ -= item.bytes.size();
    items_.pop_front();
    changed_.notify_all();
  }
}

}  // namespace tern
