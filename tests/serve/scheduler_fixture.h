// The scheduler of the server on a tiny model, for its tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "serve/scheduler.h"
#include "tests/serve/serve_model.h"

namespace tern::testing {

using serve::GenerationRequest;
using serve::Scheduler;
using serve::SchedulerOptions;
using serve::Ticket;

inline constexpr std::chrono::milliseconds kLong{
    120'000};  // Beyond any test, also under sanitizers

inline GenerationRequest Request(int64_t prompt_tokens, int64_t max_tokens, uint64_t seed) {
  GenerationRequest request;
  request.tokens = RandomTokens(prompt_tokens, 265, seed);
  request.max_tokens = max_tokens;
  request.sampling.temperature = seed % 2 == 0 ? 0 : 0.9;
  request.sampling.seed = seed;
  request.ignore_eos = true;
  return request;
}

struct Result {
  std::string text;
  std::vector<serve::ScoredToken> prompt, tokens;
  std::optional<serve::FinishReason> finish;

  bool operator==(const Result& other) const {
    const auto same = [](const auto& a, const auto& b) {
      return a.id == b.id && a.text == b.text && a.logprob == b.logprob && a.top == b.top;
    };
    return text == other.text && finish == other.finish &&
           std::equal(prompt.begin(), prompt.end(), other.prompt.begin(), other.prompt.end(),
                      same) &&
           std::equal(tokens.begin(), tokens.end(), other.tokens.begin(), other.tokens.end(), same);
  }
};

inline std::vector<Result> Collect(Ticket& ticket, size_t choices) {
  std::vector<Result> results(choices);
  for (size_t open = choices; open > 0;) {
    std::optional<serve::Event> event = ticket.Next(kLong);
    if (!event) {
      ADD_FAILURE() << "no event came";
      break;
    }
    Result& result = results.at(event->choice);
    result.text += event->progress.text;
    for (auto& token : event->progress.prompt) result.prompt.push_back(token);
    for (auto& token : event->progress.tokens) result.tokens.push_back(token);
    result.finish = event->progress.finish;
    if (result.finish) --open;
  }
  return results;
}

class SchedulerTest : public ::testing::Test {
 protected:
  Scheduler& Start(int64_t pages, int64_t max_running = 8, int64_t step_rows = 16,
                   int64_t max_waiting = 64) {
    SchedulerOptions options;
    options.pages = pages;
    options.max_running = max_running;
    options.step_rows = step_rows;
    options.max_waiting = max_waiting;
    scheduler_ = std::make_unique<Scheduler>(*engine_, options, &metrics_);
    return *scheduler_;
  }

  Result RunAlone(const GenerationRequest& request) {
    SchedulerOptions options;
    options.pages = 64;
    serve::Metrics metrics;
    Scheduler alone(ServeEngine<1>(), options, &metrics);
    return Collect(*alone.Submit({request}, kLong), 1)[0];
  }

  void ExpectAllReturned() {
    scheduler_->Drain(kLong);
    const serve::Gauges gauges = scheduler_->gauges();
    EXPECT_EQ(gauges.kv_pages_used, 0);
    EXPECT_EQ(gauges.running, 0);
    EXPECT_EQ(gauges.waiting, 0);
  }

  const engine::Engine* engine_ = &ServeEngine<1>();
  serve::Metrics metrics_;
  std::unique_ptr<Scheduler> scheduler_;
};

}  // namespace tern::testing
