// See loader.h.
#include "data/loader.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "base/error.h"

namespace tern::data {
namespace {

Batch MakeStep(const TokenSource& tokens, const MixtureSampler& sampler,
               const LoaderOptions& options, int64_t step) {
  TERN_CHECK(step >= 0 && step < INT64_MAX / options.sequences_per_step, "step ", step);
  std::vector<int64_t> starts;
  for (int64_t i = 0; i < options.sequences_per_step; ++i) {
    starts.push_back(sampler.WindowStart(step * options.sequences_per_step + i));
  }
  return MakeBatch(tokens, options.split, starts, options.sequence_length, options.packing);
}

MixtureSampler MakeSampler(const TokenSource& tokens, const LoaderOptions& options) {
  return MixtureSampler(tokens.Parts(options.split), options.sequence_length, options.seed);
}

template <class T>
std::vector<T> Part(const std::vector<T>& values, int64_t begin, int64_t count) {
  if (values.empty()) return {};
  return {values.begin() + begin, values.begin() + begin + count};
}

}  // namespace

Batch BatchOfStep(const TokenSource& tokens, const LoaderOptions& options, int64_t step) {
  return MakeStep(tokens, MakeSampler(tokens, options), options, step);
}

Batch MicroBatch(const Batch& batch, int64_t micro, int64_t micros) {
  TERN_CHECK(micros > 0 && batch.batch % micros == 0 && micro >= 0 && micro < micros, micro, " of ",
             micros);
  const int64_t rows = batch.batch / micros, begin = micro * rows * batch.tokens,
                count = rows * batch.tokens;
  return {rows,
          batch.tokens,
          Part(batch.inputs, begin, count),
          Part(batch.targets, begin, count),
          Part(batch.positions, begin, count),
          Part(batch.document_ids, begin, count)};
}

struct BatchLoader::Impl {
  Impl(const TokenSource& the_tokens, const LoaderOptions& the_options)
      : tokens(the_tokens),
        options(the_options),
        sampler(MakeSampler(tokens, options)),
        next(options.first_step) {
    TERN_CHECK(options.sequences_per_step > 0 && options.first_step >= 0,
               options.sequences_per_step, " sequences a step from step ", options.first_step);
    thread = std::thread([this] { Produce(); });
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    changed.notify_all();
    thread.join();
  }

  void Produce() {
    try {
      for (int64_t step = options.first_step;; ++step) {
        Batch batch = MakeStep(tokens, sampler, options, step);
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] {
          return stopping ||
                 static_cast<int64_t>(queue.size()) < std::max<int64_t>(1, options.prefetch);
        });
        if (stopping) return;
        queue.push_back(std::move(batch));
        changed.notify_all();
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
      changed.notify_all();
    }
  }

  const TokenSource& tokens;
  const LoaderOptions options;
  const MixtureSampler sampler;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Batch> queue;  // Guarded by mutex, as all below
  std::exception_ptr failure;
  bool stopping = false;
  int64_t next;
  std::thread thread;
};

BatchLoader::BatchLoader(const TokenSource& tokens, const LoaderOptions& options)
    : impl_(std::make_unique<Impl>(tokens, options)) {}
BatchLoader::~BatchLoader() = default;

Batch BatchLoader::Next() {
  std::unique_lock lock(impl_->mutex);
  impl_->changed.wait(lock, [&] { return !impl_->queue.empty() || impl_->failure; });
  if (impl_->queue.empty()) std::rethrow_exception(impl_->failure);
  Batch batch = std::move(impl_->queue.front());
  impl_->queue.pop_front();
  ++impl_->next;
  impl_->changed.notify_all();
  return batch;
}

int64_t BatchLoader::next_step() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->next;
}

}  // namespace tern::data
