// Continuous batching (Yu et al., "Orca", OSDI 2022) over one paged cache: one thread runs the
// model, and each of its steps takes the next token of every running sequence and, with what is
// left of the step's rows, parts of prompts. A sequence joins as soon as there is a slot and room
// in the cache, and leaves the moment it ends.
// A sequence begins behind the longest prefix that a text of before or beside it left in the cache.
// Invariants: a choice's text, tokens and log probabilities depend on its own request alone
// (decoder.h), never on what else runs, on preemption or on how prompts are cut; every page comes
// back; the oldest running sequence always goes on, so everything that was accepted ends.
// Order: among waiting requests the one with the fewest running sequences first, then by arrival.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/decoder.h"
#include "serve/generation.h"
#include "serve/metrics.h"
#include "serve/prefix_cache.h"

namespace tern::serve {

struct SchedulerOptions {
  int64_t context = 0;        // Tokens of a sequence at most; 0: the model's
  int64_t max_running = 32;   // Sequences in a step
  int64_t max_waiting = 256;  // Sequences in the queue; more are refused
  int64_t step_rows = 128;    // Prompt tokens of one step at most, besides the new tokens
  int64_t pages = 0;          // Of the cache
  kernels::KvType cache = kernels::KvType::kF16;
};

struct Event {
  size_t choice = 0;
  Progress progress;
};

// A request in work, as its client sees it. Shared by the client's thread and the scheduler's.
class Ticket {
 public:
  using Clock = std::chrono::steady_clock;

  // The next event; nothing when none came in time. Throws ApiError when the request failed: 504
  // past its deadline, 500 for numbers that went bad, 503 when the server stops.
  std::optional<Event> Next(std::chrono::milliseconds timeout);
  // Nobody wants the rest. Safe to call at any time and again.
  void Cancel();

 private:
  friend class Scheduler;
  struct Failure {
    int status;
    std::string message;
  };
  void Push(Event event);
  void Fail(int status, const std::string& message);
  bool cancelled();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Event> events_;
  std::optional<Failure> failure_;
  bool cancelled_ = false;
  // Of the scheduler alone:
  Clock::time_point submitted_, deadline_;
  std::deque<std::pair<size_t, GenerationRequest>> waiting_;
  int64_t running_ = 0;
};

class Scheduler {
 public:
  // The engine (with a tokenizer), used by nobody else meanwhile, and the metrics must outlive it.
  // Throws UsageError for options out of range.
  Scheduler(const engine::Engine& engine, const SchedulerOptions& options, Metrics* metrics);
  ~Scheduler();  // Fails what is not done

  // Queues the choices of one request. Throws ApiError: 400 for a sequence that can never fit
  // (tokens, pages) or a token outside of the vocabulary, 429 when the queue is full (retry_after),
  // 503 when draining.
  std::shared_ptr<Ticket> Submit(std::vector<GenerationRequest> choices,
                                 std::chrono::milliseconds limit);

  // Refuses new requests from now on, and waits until all are done; after `limit` it fails the
  // rest.
  void Drain(std::chrono::milliseconds limit);

  int64_t context() const { return decoder_.capacity(); }
  Gauges gauges() const;

 private:
  struct Running {
    std::shared_ptr<Ticket> ticket;
    size_t choice;
    Generation generation;
    Ticket::Clock::time_point admitted, last_token{};
    bool prompt_counted = false, done = false, failed = false;
  };
  // What one sequence does in a step.
  struct Work {
    Running* running;
    int64_t count;
    bool all_rows;
  };

  void Loop();
  void DropEnded();
  void Admit();
  int64_t PagesStillNeeded() const;
  int64_t UsedPages() const;
  int64_t AvailablePages() const { return options_.pages - UsedPages(); }
  int64_t BeginWithKnown(Generation* generation);
  bool WaitsForOlder(std::list<Running>::const_iterator younger) const;
  bool MakeRoom(std::list<Running>::iterator wanting, int64_t pages, int64_t* available);
  std::vector<Work> Plan();
  void Step();
  void FailAll(int status, const std::string& message);
  void Finish(const Work& work, std::span<const float> logits);
  void CheckFits(const std::vector<GenerationRequest>& choices) const;
  int RetryAfter() const;
  void UpdateGauges();

  const engine::Engine& engine_;
  const SchedulerOptions options_;
  Metrics* metrics_;
  engine::KvCache cache_;
  engine::Decoder decoder_;
  PrefixCache prefixes_;        // Of the model's thread alone, as running_
  std::list<Running> running_;  // In order of admission; of the model's thread alone

  mutable std::mutex mutex_;
  std::condition_variable work_, idle_;
  std::list<std::shared_ptr<Ticket>> tickets_;  // With sequences that wait
  int64_t waiting_ = 0;
  bool draining_ = false, stop_ = false, busy_ = false;
  double seconds_per_sequence_ = 1;  // Smoothed
  Gauges gauges_;
  std::thread thread_;
};

}  // namespace tern::serve
