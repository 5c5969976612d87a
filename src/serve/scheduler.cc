// See scheduler.h.
#include "serve/scheduler.h"

#include <algorithm>
#include <cmath>
#include <exception>

#include "base/error.h"
#include "base/log.h"
#include "serve/api_error.h"

namespace tern::serve {
namespace {

using Clock = Ticket::Clock;

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

SchedulerOptions Checked(SchedulerOptions options, const engine::Engine& engine) {
  const auto check = [](const char* name, int64_t value, int64_t low) {
    if (value < low) throw UsageError(StrCat(name, " is ", value, "; want ", low, " or more"));
  };
  const int64_t model = engine.config().context_length;
  if (options.context == 0) options.context = model;
  check("the context", options.context, 2);
  if (options.context > model)
    throw UsageError(StrCat("the context is ", options.context, "; the model's is ", model));
  check("the number of running sequences", options.max_running, 1);
  check("the length of the queue", options.max_waiting, 1);
  check("the number of prompt tokens in a step", options.step_rows, 1);
  check("the number of pages", options.pages, 1);
  TERN_CHECK_INPUT(engine.weights().tokenizer.has_value(), engine.weights().source,
                   " has no tokenizer; a server needs one");
  return options;
}

}  // namespace

std::optional<Event> Ticket::Next(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [&] { return !events_.empty() || failure_; });
  if (events_.empty()) {
    if (failure_) throw ApiError(failure_->status, failure_->message);
    return {};
  }
  Event event = std::move(events_.front());
  events_.pop_front();
  return event;
}

void Ticket::Cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
}

bool Ticket::cancelled() {
  const std::lock_guard lock(mutex_);
  return cancelled_ || failure_;
}

void Ticket::Push(Event event) {
  const std::lock_guard lock(mutex_);
  if (cancelled_ || failure_) return;
  events_.push_back(std::move(event));
  changed_.notify_all();
}

void Ticket::Fail(int status, const std::string& message) {
  const std::lock_guard lock(mutex_);
  if (!failure_) failure_ = Failure{status, message};
  changed_.notify_all();
}

Scheduler::Scheduler(const engine::Engine& engine, const SchedulerOptions& options,
                     Metrics* metrics)
    : engine_(engine),
      options_(Checked(options, engine)),
      metrics_(metrics),
      cache_(engine.config(), options_.pages, options_.cache),
      decoder_(engine, cache_, options_.context),
      prefixes_(cache_) {
  gauges_.kv_pages = options_.pages;
  thread_ = std::thread([this] { Loop(); });
}

Scheduler::~Scheduler() {
  Drain(std::chrono::milliseconds(0));
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  thread_.join();
}

void Scheduler::CheckFits(const std::vector<GenerationRequest>& choices) const {
  TERN_CHECK(!choices.empty(), "a request without choices");
  // Rows of the model beyond the tokenizer's pieces are padding: no text holds them.
  const int64_t vocab_size =
      std::min<int64_t>(engine_.config().vocab_size, engine_.weights().tokenizer->vocab_size());
  for (const GenerationRequest& choice : choices) {
    const int64_t prompt = std::ssize(choice.tokens);
    if (prompt == 0)
      throw ApiError(400, "the prompt has no tokens; give it some text", "prompt", "invalid_value");
    for (const int32_t id : choice.tokens) {
      if (id < 0 || id >= vocab_size)
        throw ApiError(400, StrCat("token id ", id, " is outside of 0 to ", vocab_size - 1),
                       "prompt", "invalid_value");
    }
    if (prompt + choice.max_tokens > context())
      throw ApiError(400,
                     StrCat("this model's maximum context length is ", context(),
                            " tokens; this request has ", prompt, " in the prompt and asks for ",
                            choice.max_tokens, " more. Shorten one of them by ",
                            prompt + choice.max_tokens - context(), " or more"),
                     "", "context_length_exceeded");
    const int64_t pages = engine::KvCache::PagesFor(prompt + choice.max_tokens);
    if (pages > options_.pages)
      throw ApiError(400,
                     StrCat("this request needs ", pages,
                            " pages of the key-value cache; there "
                            "are ",
                            options_.pages,
                            ". Ask for fewer tokens, or start the server "
                            "with a larger cache"),
                     "", "context_length_exceeded");
  }
}

std::shared_ptr<Ticket> Scheduler::Submit(std::vector<GenerationRequest> choices,
                                          std::chrono::milliseconds limit) {
  CheckFits(choices);
  auto ticket = std::make_shared<Ticket>();
  const int64_t count = std::ssize(choices);
  for (size_t i = 0; i < choices.size(); ++i)
    ticket->waiting_.emplace_back(i, std::move(choices[i]));
  ticket->submitted_ = Clock::now();
  ticket->deadline_ = ticket->submitted_ + limit;
  {
    const std::lock_guard lock(mutex_);
    if (draining_) throw ApiError(503, "the server is stopping", "", "stopping");
    // A request alone in the queue is taken whatever its size, or it could never run.
    if (waiting_ > 0 && waiting_ + count > options_.max_waiting)
      throw ApiError(429,
                     StrCat("the queue holds ", waiting_, " sequences of at most ",
                            options_.max_waiting, "; ", count, " more do not fit. Try again later"),
                     "", "queue_full", RetryAfter());
    tickets_.push_back(ticket);
    waiting_ += count;
    gauges_.waiting = waiting_;
    busy_ = true;
  }
  work_.notify_all();
  return ticket;
}

// How long until the queue has moved by its own length, as far as one can tell.
int Scheduler::RetryAfter() const {
  const double turns = static_cast<double>(waiting_) / static_cast<double>(options_.max_running);
  return static_cast<int>(std::clamp(std::ceil(turns * seconds_per_sequence_), 1.0, 60.0));
}

void Scheduler::Drain(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  draining_ = true;
  if (idle_.wait_for(lock, limit, [&] { return !busy_; })) return;
  stop_ = true;  // Loop fails the rest
  work_.notify_all();
  idle_.wait(lock, [&] { return !busy_; });
}

Gauges Scheduler::gauges() const {
  const std::lock_guard lock(mutex_);
  return gauges_;
}

void Scheduler::UpdateGauges() {
  const std::lock_guard lock(mutex_);
  gauges_.waiting = waiting_;
  gauges_.running = std::ssize(running_);
  gauges_.kv_pages_used = UsedPages();
  gauges_.kv_pages_kept = options_.pages - cache_.free_pages() - gauges_.kv_pages_used;
  busy_ = waiting_ > 0 || !running_.empty();
  if (!busy_) idle_.notify_all();
}

void Scheduler::Loop() {
  while (true) {
    {
      std::unique_lock lock(mutex_);
      work_.wait(lock, [&] { return stop_ || busy_; });
      if (stop_) break;
    }
    DropEnded();
    Admit();
    try {
      if (!running_.empty()) Step();
    } catch (const std::exception& error) {  // Ours, or out of memory: the server goes on
      LogError("a step of the model failed: ", error.what());
      FailAll(500, StrCat("the server failed: ", error.what()));
    }
    UpdateGauges();
  }
  const char* message = "the server stopped before the request was done";
  FailAll(503, message);
  {
    const std::lock_guard lock(mutex_);
    for (const auto& ticket : tickets_) ticket->Fail(503, message);
    tickets_.clear();
    waiting_ = 0;
  }
  UpdateGauges();
}

// Of the requests with running sequences.
void Scheduler::FailAll(int status, const std::string& message) {
  for (Running& running : running_) {
    running.ticket->Fail(status, message);
    --running.ticket->running_;
  }
  running_.clear();
}

// Requests that nobody waits for any more, or whose time is over.
void Scheduler::DropEnded() {
  const Clock::time_point now = Clock::now();
  const auto ended = [&](Ticket& ticket) {
    if (now >= ticket.deadline_)
      ticket.Fail(504, StrCat("the request took longer than the server's limit of ",
                              std::lround(Seconds(ticket.deadline_ - ticket.submitted_)),
                              " s. Ask for fewer tokens"));
    return ticket.cancelled();
  };
  std::vector<const Ticket*> counted;
  for (auto at = running_.begin(); at != running_.end();) {
    if (!ended(*at->ticket)) {
      ++at;
      continue;
    }
    --at->ticket->running_;
    if (std::find(counted.begin(), counted.end(), at->ticket.get()) == counted.end())
      counted.push_back(at->ticket.get());
    at = running_.erase(at);
  }
  const std::lock_guard lock(mutex_);
  tickets_.remove_if([&](const std::shared_ptr<Ticket>& ticket) {
    if (!ended(*ticket)) return false;
    waiting_ -= std::ssize(ticket->waiting_);
    if (std::find(counted.begin(), counted.end(), ticket.get()) == counted.end())
      counted.push_back(ticket.get());
    return true;
  });
  for (size_t i = 0; i < counted.size(); ++i) metrics_->CountCancelled();
}

// For the tokens that running sequences have and the cache has not.
int64_t Scheduler::PagesStillNeeded() const {
  int64_t pages = 0;
  for (const Running& running : running_) {
    const engine::Sequence& sequence = running.generation.sequence();
    pages += engine::KvCache::PagesFor(sequence.size() + std::ssize(running.generation.Pending())) -
             std::ssize(sequence.pages());
  }
  return pages;
}

// Pages that running sequences have. The others are there for whoever needs them: free, or kept of
// texts of before.
int64_t Scheduler::UsedPages() const {
  std::vector<bool> used(static_cast<size_t>(options_.pages));
  for (const Running& running : running_)
    for (const int32_t page : running.generation.sequence().pages())
      used[static_cast<size_t>(page)] = true;
  return std::count(used.begin(), used.end(), true);
}

// Shares what a text of before, or one that runs, has in common with a generation that has run
// nothing. Returns the tokens saved.
int64_t Scheduler::BeginWithKnown(Generation* generation) {
  if (!generation->MayBeginWithin()) return 0;
  const std::span<const int32_t> tokens = generation->Pending();
  int64_t longest = 0;
  const engine::Sequence* best = prefixes_.Find(tokens, &longest);
  for (const Running& other : running_) {
    const int64_t common = CommonPrefix(other.generation.Ran(), tokens);
    if (common > longest) longest = common, best = &other.generation.sequence();
  }
  return best == nullptr ? 0 : generation->BeginWith(*best, longest);
}

// An older sequence is about to fill a page that this one begins with, too.
bool Scheduler::WaitsForOlder(std::list<Running>::const_iterator younger) const {
  const std::span<const int32_t> tokens = younger->generation.tokens();
  if (!younger->generation.MayBeginWithin()) return false;
  return std::any_of(running_.begin(), younger, [&](const Running& older) {
    const std::span<const int32_t> others = older.generation.tokens();
    const int64_t common = std::min(CommonPrefix(others, tokens), std::ssize(tokens) - 1);
    return older.generation.Pending().size() > 1 &&
           common / kernels::kKvPageTokens >
               older.generation.sequence().size() / kernels::kKvPageTokens;
  });
}

void Scheduler::Admit() {
  while (std::ssize(running_) < options_.max_running) {
    std::shared_ptr<Ticket> ticket;
    std::pair<size_t, GenerationRequest> next;
    {
      const std::lock_guard lock(mutex_);
      if (tickets_.empty()) return;
      const auto fewest =
          std::min_element(tickets_.begin(), tickets_.end(),
                           [](const auto& a, const auto& b) { return a->running_ < b->running_; });
      ticket = *fewest;
      // Its prompt and some new tokens must fit besides what the others have. It waits for that,
      // and those behind it, too: otherwise small ones could pass it for ever.
      const auto prompt = std::ssize(ticket->waiting_.front().second.tokens);
      if (!running_.empty() &&
          engine::KvCache::PagesFor(prompt) + 1 > AvailablePages() - PagesStillNeeded())
        return;
      next = std::move(ticket->waiting_.front());
      ticket->waiting_.pop_front();
      --waiting_;
      if (ticket->waiting_.empty()) tickets_.erase(fewest);
    }
    try {
      running_.push_back({ticket, next.first,
                          Generation(engine_.weights(), std::move(next.second), cache_),
                          Clock::now()});
      ++ticket->running_;
    } catch (const UsageError& error) {
      ticket->Fail(400, error.what());
    }
  }
}

// Gives `wanting` at least `pages` of the cache, of `*available` that no older sequence has or was
// promised in this step: by preempting younger ones, the youngest first. They keep their text so
// far and start again when there is room.
bool Scheduler::MakeRoom(std::list<Running>::iterator wanting, int64_t pages, int64_t* available) {
  for (auto at = running_.end(); pages > *available && --at != wanting;) {
    if (at->generation.sequence().pages().empty()) continue;
    const int64_t before = UsedPages();
    at->generation.Restart();
    *available += before - UsedPages();  // Others may share some
    metrics_->CountPreempted();
  }
  return pages <= *available;
}

// Which tokens run in this step: the next one of every sequence whose prompt is in, and of the
// others, in order of admission, as many as there are rows for.
std::vector<Scheduler::Work> Scheduler::Plan() {
  std::vector<Work> plan;
  int64_t rows = options_.step_rows, promised = 0, available = AvailablePages();
  for (auto at = running_.begin(); at != running_.end(); ++at) {
    Generation& generation = at->generation;
    const engine::Sequence& sequence = generation.sequence();
    const bool starts = sequence.size() == 0;
    if (starts && WaitsForOlder(at)) continue;
    const int64_t saved = starts && rows > 0 ? BeginWithKnown(&generation) : 0;
    if (saved > 0) available = AvailablePages() - promised;  // Kept pages are in use again
    const int64_t pending = std::ssize(generation.Pending());
    const int64_t count = pending == 1 ? 1 : std::min(pending, rows);
    if (count == 0) continue;
    const int64_t held = std::ssize(sequence.pages());
    // One that starts (again) waits until all its tokens have room: no half prompts that have to
    // go again. The oldest always starts.
    if (starts && at != running_.begin() &&
        engine::KvCache::PagesFor(sequence.size() + pending) - held > available) {
      generation.Restart();  // What it begins with is not held meanwhile
      if (saved > 0) available = AvailablePages() - promised;
      continue;
    }
    const int64_t pages = engine::KvCache::PagesFor(sequence.size() + count) - held;
    if (!MakeRoom(at, pages, &available)) continue;
    promised += pages;
    available -= pages;
    metrics_->CountReusedTokens(saved);
    if (pending > 1) rows -= count;
    plan.push_back({&*at, count, generation.WantsAllRows()});
  }
  // The oldest fits alone into the cache (CheckFits), so there is always something to do.
  TERN_CHECK(!plan.empty(), running_.size(), " sequences and none can run");
  prefixes_.MakeFree(promised);
  return plan;
}

void Scheduler::Step() {
  const std::vector<Work> plan = Plan();
  std::vector<engine::Decoder::Request> requests;
  int64_t rows = 0;
  for (const Work& work : plan) {
    Generation& generation = work.running->generation;
    requests.push_back({&generation.sequence(),
                        generation.Pending().first(static_cast<size_t>(work.count)),
                        work.all_rows ? engine::LogitsOf::kAll : engine::LogitsOf::kLast});
    rows += work.count;
  }
  std::vector<std::vector<float>> logits = decoder_.Run(requests);
  metrics_->CountStep(rows);
  // Choosing costs a pass over the vocabulary each: shared among the engine's threads.
  engine_.parallel()(std::ssize(plan), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      Finish(plan[static_cast<size_t>(i)], logits[static_cast<size_t>(i)]);
  });
  const Clock::time_point now = Clock::now();
  std::erase_if(running_, [&](Running& running) {
    if (!running.done) return false;
    --running.ticket->running_;
    if (running.failed) return true;  // Nobody may begin with its numbers
    const std::vector<int32_t> ran(running.generation.Ran().begin(),
                                   running.generation.Ran().end());
    prefixes_.Keep(ran, running.generation.TakeSequence());
    const std::lock_guard lock(mutex_);
    seconds_per_sequence_ += 0.1 * (Seconds(now - running.admitted) - seconds_per_sequence_);
    return true;
  });
}

// Runs on any of the engine's threads, each sequence on one.
void Scheduler::Finish(const Work& work, std::span<const float> logits) {
  Running& running = *work.running;
  Generation& generation = running.generation;
  const int64_t before = generation.generated();
  try {
    Event event{running.choice, generation.Take(work.count, logits)};
    const Clock::time_point now = Clock::now();
    const bool first = before == 0 && generation.Pending().size() <= 1;
    if (first && !running.prompt_counted) metrics_->CountPromptTokens(generation.prompt_tokens());
    running.prompt_counted |= first;
    if (generation.generated() > before) {
      metrics_->CountNewToken(before == 0, Seconds(now - (before == 0 ? running.ticket->submitted_
                                                                      : running.last_token)));
      running.last_token = now;
    }
    running.done = event.progress.finish.has_value();
    const Progress& progress = event.progress;
    if (progress.finish || !progress.tokens.empty() || !progress.prompt.empty())
      running.ticket->Push(std::move(event));
  } catch (const NumericError& error) {
    LogError("a request failed: ", error.what());
    running.ticket->Fail(500, error.what());
    running.done = running.failed = true;
  }
}

}  // namespace tern::serve
