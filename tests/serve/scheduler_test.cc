// Continuous batching: what a request gives is what the engine alone gives, whatever runs beside
// it; nobody starves; and slots, pages and queue come back however a request ends.
#include "serve/scheduler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <thread>
#include <utility>

#include "base/error.h"
#include "engine/generate.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "serve/api_error.h"
#include "tests/serve/scheduler_fixture.h"

namespace tern::testing {
namespace {

using namespace std::chrono_literals;
using serve::ApiError;

TEST_F(SchedulerTest, GivesTheTextOfTheEngineAlone) {
  Scheduler& scheduler = Start(64);
  const engine::Engine& engine = ServeEngine<1>();
  for (const char* prompt : {"To be", "To be, or not to be: that is the question", "b"}) {
    for (const double temperature : {0.0, 1.0}) {
      engine::GenerateOptions options;
      options.max_tokens = 24;
      options.sampling.temperature = temperature;
      options.sampling.top_k = 20;
      options.sampling.repetition_penalty = 1.2;
      options.stop = {"q", "ob"};
      GenerationRequest request;
      request.tokens = {engine.weights().tokenizer->bos_id()};
      for (const int32_t id : engine.weights().tokenizer->Encode(prompt))
        request.tokens.push_back(id);
      request.max_tokens = options.max_tokens;
      request.sampling = options.sampling;
      request.stop = options.stop;
      const auto alone = engine::Generate(engine, prompt, options, {});
      const Result result = Collect(*scheduler.Submit({request}, kLong), 1)[0];
      EXPECT_EQ(result.text, alone.text);
      EXPECT_EQ(result.finish, alone.end == engine::EndReason::kTokenLimit
                                   ? serve::FinishReason::kLength
                                   : serve::FinishReason::kStop);
    }
  }
  ExpectAllReturned();
}

// Goal: load, slots, chunks and a cache too small for all (so that sequences are preempted) change
// neither a token nor a bit of a log probability.
TEST_F(SchedulerTest, LoadChangesNothing) {
  std::vector<GenerationRequest> requests;
  std::vector<Result> alone;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    requests.push_back(Request(1 + static_cast<int64_t>(seed * 13), 40, seed));
    requests.back().top_logprobs = static_cast<int64_t>(seed % 3);
    requests.back().prompt_logprobs = seed % 4 < 2;
    alone.push_back(RunAlone(requests.back()));
    ASSERT_EQ(alone.back().tokens.size(), 40u);
  }
  Start(/*pages=*/8, /*max_running=*/6, /*step_rows=*/7);
  std::vector<std::shared_ptr<Ticket>> tickets;
  for (const auto& request : requests) tickets.push_back(scheduler_->Submit({request}, kLong));
  for (size_t i = 0; i < tickets.size(); ++i)
    EXPECT_TRUE(Collect(*tickets[i], 1)[0] == alone[i]) << "request " << i;
  // One request of many choices gives the same, too.
  const std::vector<Result> together =
      Collect(*scheduler_->Submit(requests, kLong), requests.size());
  for (size_t i = 0; i < requests.size(); ++i)
    EXPECT_TRUE(together[i] == alone[i]) << "choice " << i;
  EXPECT_EQ(metrics_.Render({}).find("tern_preempted_total 0\n"), std::string::npos)
      << "the cache was large enough: the test misses its point";
  ExpectAllReturned();
}

// Goal: log probabilities are those of the engine's logits, at every position and for every cut.
TEST_F(SchedulerTest, PromptIsScoredExactly) {
  Start(64, 8, /*step_rows=*/5);
  for (const int64_t size : {1, 2, 5, 6, 33}) {
    GenerationRequest request = Request(size, 1, 2);
    request.top_logprobs = 2;
    request.prompt_logprobs = true;
    const Result result = Collect(*scheduler_->Submit({request}, kLong), 1)[0];
    ASSERT_EQ(std::ssize(result.prompt), size);
    ASSERT_EQ(result.tokens.size(), 1u);
    EXPECT_FALSE(result.prompt[0].logprob);
    engine::Session session(ServeEngine<1>(), 0, kernels::KvType::kF16);
    const std::vector<float> logits = session.Append(request.tokens, engine::LogitsOf::kAll);
    for (int64_t t = 0; t < size; ++t) {
      const serve::ScoredToken& token =
          t + 1 < size ? result.prompt[static_cast<size_t>(t + 1)] : result.tokens[0];
      const std::span row = std::span(logits).subspan(static_cast<size_t>(t * 265), 265);
      double sum = 0;
      for (const float logit : row) sum += std::exp(static_cast<double>(logit));
      // fp32 exp of 265 terms: relative errors of 1e-7 each, so 1e-6 of their log is ample.
      EXPECT_NEAR(*token.logprob,
                  static_cast<double>(row[static_cast<size_t>(token.id)]) - std::log(sum), 1e-6);
      ASSERT_EQ(token.top.size(), 2u);
      const auto best = std::max_element(row.begin(), row.end()) - row.begin();
      EXPECT_EQ(token.top[0].first, best);
      EXPECT_GE(token.top[0].second, token.top[1].second);
    }
  }
  ExpectAllReturned();
}

TEST_F(SchedulerTest, MaxTokensZeroOnlyScores) {
  Start(64);
  GenerationRequest request = Request(7, 0, 2);
  request.top_logprobs = 0;
  request.prompt_logprobs = true;
  const Result result = Collect(*scheduler_->Submit({request}, kLong), 1)[0];
  EXPECT_EQ(result.prompt.size(), 7u);
  EXPECT_TRUE(result.tokens.empty());
  EXPECT_EQ(result.finish, serve::FinishReason::kLength);
}

TEST_F(SchedulerTest, EndOfTextIsATokenWithoutText) {
  Start(64);
  // The tiny model ends its text by chance: one of these seeds does so.
  for (uint64_t seed = 1;; seed += 2) {
    ASSERT_LT(seed, 400u) << "no text ended";
    GenerationRequest request = Request(3, 60, seed);
    request.ignore_eos = false;
    request.sampling.temperature = 1.9;
    const Result result = Collect(*scheduler_->Submit({request}, kLong), 1)[0];
    if (result.finish == serve::FinishReason::kLength) continue;
    EXPECT_EQ(result.tokens.back().id, ServeEngine<1>().weights().tokenizer->eos_id());
    EXPECT_EQ(result.tokens.back().text, "");
    break;
  }
}

// Chat models have more tokens that end a text than one.
TEST_F(SchedulerTest, TokensThatEndATurnEndTheText) {
  const TempFolder folder;
  WriteServeModel(folder / "model.gguf");
  engine::ModelWeights weights = engine::LoadModel(folder / "model.gguf");
  for (int32_t id = 3; id < 265; ++id) weights.stop_tokens.push_back(id);  // All that have a text
  const engine::Engine engine(std::move(weights), 1);
  engine_ = &engine;
  Start(64);
  GenerationRequest request = Request(3, 60, 1);
  EXPECT_EQ(Collect(*scheduler_->Submit({request}, kLong), 1)[0].tokens.size(), 60u) << "ignored";
  request.ignore_eos = false;
  const Result result = Collect(*scheduler_->Submit({request}, kLong), 1)[0];
  EXPECT_EQ(result.finish, serve::FinishReason::kStop);
  EXPECT_LT(result.tokens.size(), 5u);
  EXPECT_EQ(result.tokens.back().text, "");
  scheduler_.reset();  // Before its engine
}

// Goal: a short request ends while a long one with more choices than slots is at work.
TEST_F(SchedulerTest, ShortRequestIsNotBehindALongOne) {
  Start(128, /*max_running=*/4);
  std::vector<GenerationRequest> many;
  for (uint64_t i = 0; i < 24; ++i) many.push_back(Request(8, 50, i));
  const auto large = scheduler_->Submit(many, kLong);
  ASSERT_TRUE(large->Next(kLong));  // It has begun and holds all slots
  const auto small = scheduler_->Submit({Request(3, 2, 2)}, kLong);
  Collect(*small, 1);
  EXPECT_GT(scheduler_->gauges().waiting, 0) << "the large request was done first";
  Collect(*large, many.size());
  ExpectAllReturned();
}

TEST_F(SchedulerTest, FullQueueIsRefusedAndSaysWhen) {
  Start(64, /*max_running=*/1, 16, /*max_waiting=*/2);
  const auto first = scheduler_->Submit({Request(3, 250, 1)}, kLong);
  ASSERT_TRUE(first->Next(kLong));  // Runs: the queue is empty
  const auto second = scheduler_->Submit({Request(3, 2, 1), Request(3, 2, 3)}, kLong);
  try {
    scheduler_->Submit({Request(3, 2, 1)}, kLong);
    ADD_FAILURE() << "the queue took a third sequence";
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status, 429);
    EXPECT_GE(error.retry_after, 1);
  }
  first->Cancel();
  Collect(*second, 2);
  Collect(*scheduler_->Submit({Request(3, 2, 1)}, kLong), 1);
  ExpectAllReturned();
}

TEST_F(SchedulerTest, CancelledRequestsGiveEverythingBack) {
  Start(40, /*max_running=*/2);
  const auto running = scheduler_->Submit({Request(20, 270, 1), Request(20, 270, 2)}, kLong);
  const auto waiting = scheduler_->Submit({Request(20, 270, 3)}, kLong);
  ASSERT_TRUE(running->Next(kLong));
  EXPECT_GT(scheduler_->gauges().running, 0);
  waiting->Cancel();
  running->Cancel();
  running->Cancel();
  EXPECT_EQ(Collect(*scheduler_->Submit({Request(3, 5, 4)}, kLong), 1)[0].tokens.size(), 5u);
  ExpectAllReturned();
}

TEST_F(SchedulerTest, DeadlineEndsARequest) {
  Start(64, /*max_running=*/1);
  const auto ticket = scheduler_->Submit({Request(20, 270, 1)}, 1ms);
  try {
    while (true) ASSERT_TRUE(ticket->Next(kLong));
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status, 504);
  }
  ExpectAllReturned();
}

TEST_F(SchedulerTest, RefusesWhatCanNeverFit) {
  Start(/*pages=*/4);
  const auto expect = [&](GenerationRequest request, const std::string& part) {
    try {
      scheduler_->Submit({std::move(request)}, kLong);
      ADD_FAILURE() << "accepted: " << part;
    } catch (const ApiError& error) {
      EXPECT_EQ(error.status, 400);
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  expect(Request(0, 5, 1), "no tokens");
  expect(Request(200, 101, 1), "maximum context length is 300");
  expect(Request(5, int64_t{1} << 31, 1), "maximum context length is 300");
  expect(Request(100, 29, 1), "pages");
  GenerationRequest outside = Request(5, 5, 1);
  outside.tokens[2] = 265;
  expect(outside, "token id 265");
  outside.tokens[2] = -1;
  expect(outside, "token id -1");
  // One token less fits, and uses the whole cache.
  EXPECT_EQ(Collect(*scheduler_->Submit({Request(100, 28, 2)}, kLong), 1)[0].tokens.size(), 28u);
  ExpectAllReturned();
}

TEST_F(SchedulerTest, DrainEndsWhatItCanAndFailsTheRest) {
  Start(64, /*max_running=*/1);
  const auto first = scheduler_->Submit({Request(3, 5, 1)}, kLong);
  scheduler_->Drain(kLong);
  EXPECT_EQ(Collect(*first, 1)[0].tokens.size(), 5u);
  EXPECT_THROW(scheduler_->Submit({Request(3, 5, 1)}, kLong), ApiError);

  Start(64, /*max_running=*/1);
  const auto running = scheduler_->Submit({Request(3, 290, 1)}, kLong);
  const auto waiting = scheduler_->Submit({Request(3, 290, 1)}, kLong);
  scheduler_->Drain(0ms);
  for (const auto& ticket : {running, waiting}) {
    EXPECT_THROW(
        {
          while (ticket->Next(kLong)) {
          }
        },
        ApiError);
  }
  ExpectAllReturned();
}

// Goal: many threads that submit, cancel and collect leave nothing behind (and no race: TSan).
TEST_F(SchedulerTest, ManyClients) {
  engine_ = &ServeEngine<2>();  // Tokens are then chosen on both threads
  Start(24, 5, 9, /*max_waiting=*/1000);
  std::vector<std::thread> clients;
  for (uint64_t client = 0; client < 8; ++client) {
    clients.emplace_back([&, client] {
      for (uint64_t i = 0; i < 4; ++i) {
        const uint64_t seed = client * 16 + i;
        const auto ticket = scheduler_->Submit(
            {Request(1 + static_cast<int64_t>(seed % 50), 12, seed), Request(4, 12, seed + 1)},
            kLong);
        if (i % 2 == 0) {
          EXPECT_EQ(Collect(*ticket, 2)[1].tokens.size(), 12u);
        } else {
          ticket->Next(1ms);
          ticket->Cancel();
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
  ExpectAllReturned();
}

}  // namespace
}  // namespace tern::testing
