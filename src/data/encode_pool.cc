// See encode_pool.h.
#include "data/encode_pool.h"

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/sha256.h"
#include "data/record_streams.h"
#include "data/token_file.h"

namespace tern::data {
namespace {

constexpr int64_t kBatchesAThread = 3;  // One at work, one waiting, one on its way out

struct Job {
  RecordBatch in;
  EncodedBatch out;
  std::exception_ptr failure;
  bool taken = false, done = false;
};

// Uniform in [0, 1) from the document's text: equal texts fall on the same side.
double HashOf(const std::string& text, uint64_t seed) {
  Sha256 hash;
  hash.Update(&seed, sizeof seed);
  hash.Update(text.data(), text.size());
  const uint64_t bits = std::stoull(hash.HexDigest().substr(0, 13), nullptr, 16);
  return static_cast<double>(bits) * 0x1p-52;
}

}  // namespace

struct EncodePool::Impl {
  Impl(const text::Tokenizer& the_tokenizer, const EncodeOptions& the_options)
      : tokenizer(the_tokenizer), options(the_options) {
    for (int i = 0; i < options.threads; ++i) threads.emplace_back([this] { Work(); });
  }
  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    changed.notify_all();
    for (std::thread& thread : threads) thread.join();
  }

  EncodedBatch Encode(RecordBatch& batch) const {
    EncodedBatch out;
    out.file = batch.file;
    out.records_before = batch.records_before;
    for (Record& record : batch.records) {
      const std::string where = WhereIn(batch.path, batch.format, record.number);
      EncodedDocument& document = out.documents.emplace_back();
      LabelledTokens encoded;
      if (options.instruction.kind == RecordKind::kText) {
        encoded.text = TextOf(record.text, batch.format, options.text_field, {}, where);
        if (!encoded.text.empty()) encoded.tokens = DocumentTokens(encoded.text, tokenizer);
      } else {
        TERN_CHECK_INPUT(IsJson(batch.format), where, ": ",
                         RecordKindName(options.instruction.kind),
                         " are read from JSON; want jsonl or json");
        encoded = EncodeInstruction(record.text, options.instruction, tokenizer, where);
      }
      std::string().swap(record.text);
      if (encoded.text.empty()) continue;
      document.text_bytes = static_cast<int64_t>(encoded.text.size());
      if (options.validation_fraction > 0 &&
          HashOf(encoded.text, options.seed) < options.validation_fraction)
        document.split = Split::kValidation;
      document.tokens = std::move(encoded.tokens);
      document.labels = std::move(encoded.labels);
    }
    return out;
  }

  static bool IsJson(RecordFormat format) {
    return format == RecordFormat::kJsonl || format == RecordFormat::kJson;
  }

  Job* NextJob() {
    for (const auto& job : jobs) {
      if (!job->taken) return job.get();
    }
    return nullptr;
  }

  void Work() {
    std::unique_lock lock(mutex);
    for (;;) {
      Job* job = nullptr;
      changed.wait(lock, [&] { return stopping || (job = NextJob()) != nullptr; });
      if (stopping) return;
      job->taken = true;
      lock.unlock();
      try {
        job->out = Encode(job->in);
      } catch (...) {
        job->failure = std::current_exception();
      }
      job->in.records.clear();
      lock.lock();
      job->done = true;
      changed.notify_all();
    }
  }

  const text::Tokenizer& tokenizer;
  const EncodeOptions options;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::unique_ptr<Job>> jobs;  // In order; guarded by mutex, as `stopping`
  bool stopping = false;
  std::vector<std::thread> threads;
};

EncodePool::EncodePool(const text::Tokenizer& tokenizer, const EncodeOptions& options)
    : impl_(std::make_unique<Impl>(tokenizer, options)) {}
EncodePool::~EncodePool() = default;

int64_t EncodePool::pending() const {
  const std::lock_guard lock(impl_->mutex);
  return static_cast<int64_t>(impl_->jobs.size());
}
int64_t EncodePool::capacity() const { return kBatchesAThread * impl_->options.threads; }

void EncodePool::Give(RecordBatch batch) {
  auto job = std::make_unique<Job>();
  job->in = std::move(batch);
  const std::lock_guard lock(impl_->mutex);
  impl_->jobs.push_back(std::move(job));
  impl_->changed.notify_all();
}

EncodedBatch EncodePool::Take() {
  std::unique_lock lock(impl_->mutex);
  TERN_CHECK(!impl_->jobs.empty(), "no batch was given");
  impl_->changed.wait(lock, [&] { return impl_->jobs.front()->done; });
  const std::unique_ptr<Job> job = std::move(impl_->jobs.front());
  impl_->jobs.pop_front();
  if (job->failure) std::rethrow_exception(job->failure);
  return std::move(job->out);
}

}  // namespace tern::data
