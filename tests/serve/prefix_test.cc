// Prefixes that stay in the cache: sequences begin behind them, with the same results to the bit,
// and they give way to whatever needs their pages.
#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "serve/api_error.h"
#include "serve/prefix_cache.h"
#include "tests/serve/scheduler_fixture.h"

namespace tern::testing {
namespace {

using engine::KvCache;
using engine::Sequence;
using serve::PrefixCache;

constexpr int64_t kPage = kernels::kKvPageTokens;

// Of the value of a counter or gauge in the text of the metrics.
int64_t ValueOf(const std::string& text, const std::string& name) {
  const size_t at = text.find("\n" + name + " ");
  return at == std::string::npos ? -1 : std::stoll(text.substr(at + name.size() + 2));
}

class PrefixCacheTest : public ::testing::Test {
 protected:
  // As if these tokens had been run.
  Sequence Ran(int64_t tokens) {
    Sequence sequence(cache_);
    sequence.Reserve(tokens);
    sequence.Advance(tokens);
    return sequence;
  }
  static std::vector<int32_t> Tokens(int64_t count, int32_t first) {
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < count; ++i) tokens.push_back(first + static_cast<int32_t>(i));
    return tokens;
  }

  KvCache cache_{TinyConfig(ArchName::kLlama), 8, kernels::KvType::kF16};
};

TEST_F(PrefixCacheTest, FindsTheLongestAndKeepsWholePages) {
  PrefixCache prefixes(cache_);
  const auto tokens = Tokens(3 * kPage - 5, 0);
  prefixes.Keep(tokens, Ran(std::ssize(tokens)));
  EXPECT_EQ(cache_.free_pages(), 6);
  auto other = Tokens(kPage + 7, 0);
  other.resize(3 * kPage, 9999);
  int64_t common = -1;
  const Sequence* found = prefixes.Find(other, &common);
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(common, kPage + 7);
  Sequence mine(cache_);
  EXPECT_EQ(mine.BeginWith(*found, common), kPage);
  EXPECT_EQ(mine.pages().size(), 1u);
  EXPECT_EQ(mine.pages()[0], found->pages()[0]);
  EXPECT_EQ(cache_.free_pages(), 6);
  EXPECT_EQ(prefixes.Find(Tokens(100, 1), &common), nullptr);
  EXPECT_EQ(prefixes.Find(Tokens(kPage - 1, 0), &common), nullptr) << "less than a page";
  EXPECT_EQ(common, 0);
  // Shared pages outlive what is let go.
  prefixes.MakeFree(8);
  EXPECT_EQ(cache_.free_pages(), 7);
  EXPECT_EQ(prefixes.Find(tokens, &common), nullptr);
}

TEST_F(PrefixCacheTest, LongerTextsReplaceTheirPrefixesAndTheLongestUnusedGoesFirst) {
  PrefixCache prefixes(cache_);
  const auto a = Tokens(2 * kPage, 0), b = Tokens(2 * kPage, 5000);
  prefixes.Keep(std::span(a).first(kPage), Ran(kPage));
  prefixes.Keep(a, Ran(2 * kPage));
  EXPECT_EQ(cache_.free_pages(), 6);
  prefixes.Keep(std::span(a).first(kPage), Ran(kPage));  // Nothing new
  EXPECT_EQ(cache_.free_pages(), 6);
  prefixes.Keep(b, Ran(2 * kPage));
  int64_t common = 0;
  ASSERT_NE(prefixes.Find(a, &common), nullptr);  // Used after b
  prefixes.MakeFree(5);
  EXPECT_EQ(cache_.free_pages(), 6);
  EXPECT_EQ(prefixes.Find(b, &common), nullptr);
  EXPECT_NE(prefixes.Find(a, &common), nullptr);
}

using PrefixTest = SchedulerTest;

// A conversation that goes on runs only what is new.
TEST_F(PrefixTest, AConversationGoesOn) {
  Start(64);
  GenerationRequest first = Request(100, 20, 2);
  const Result answer = Collect(*scheduler_->Submit({first}, kLong), 1)[0];
  EXPECT_TRUE(answer == RunAlone(first));
  EXPECT_EQ(ValueOf(metrics_.Render({}), "tern_reused_tokens_total"), 0);
  const serve::Gauges gauges = scheduler_->gauges();
  EXPECT_EQ(gauges.kv_pages_used, 0);
  EXPECT_EQ(gauges.kv_pages_kept, 119 / kPage);  // The last token chosen was not run

  GenerationRequest second = first;
  for (const serve::ScoredToken& token : answer.tokens) second.tokens.push_back(token.id);
  for (const int32_t id : RandomTokens(30, 265, 77)) second.tokens.push_back(id);
  second.top_logprobs = 2;
  EXPECT_TRUE(Collect(*scheduler_->Submit({second}, kLong), 1)[0] == RunAlone(second));
  EXPECT_EQ(ValueOf(metrics_.Render({}), "tern_reused_tokens_total"), 119 / kPage * kPage);
  ExpectAllReturned();
}

// The same prompt again: its last token is run, for its logits.
TEST_F(PrefixTest, TheWholePromptIsKnown) {
  Start(64);
  const GenerationRequest request = Request(2 * kPage, 3, 2);
  const Result want = RunAlone(request);
  for (int i = 0; i < 3; ++i)
    EXPECT_TRUE(Collect(*scheduler_->Submit({request}, kLong), 1)[0] == want);
  EXPECT_EQ(ValueOf(metrics_.Render({}), "tern_reused_tokens_total"), 2 * kPage);
}

// Choices of one prompt: it is run once, the others wait for it.
TEST_F(PrefixTest, ChoicesShareTheirPrompt) {
  Start(64, /*max_running=*/8, /*step_rows=*/40);
  std::vector<GenerationRequest> choices;
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    choices.push_back(Request(100, 10, 3));
    choices.back().sampling.seed = seed;
  }
  const auto results = Collect(*scheduler_->Submit(choices, kLong), choices.size());
  for (size_t i = 0; i < choices.size(); ++i) EXPECT_TRUE(results[i] == RunAlone(choices[i])) << i;
  EXPECT_EQ(ValueOf(metrics_.Render({}), "tern_reused_tokens_total"), 4 * (99 / kPage) * kPage);
  ExpectAllReturned();
}

// What a request begins with is not let go to make room for it: it needs no other pages.
TEST_F(PrefixTest, AConversationKeepsItsPagesBesideARunningText) {
  Start(/*pages=*/13);
  GenerationRequest first = Request(170, 10, 2);
  const Result answer = Collect(*scheduler_->Submit({first}, kLong), 1)[0];
  const auto running = scheduler_->Submit({Request(40, 150, 4)}, kLong);
  ASSERT_TRUE(running->Next(kLong));  // Two pages and more; five are kept
  GenerationRequest second = first;
  for (const serve::ScoredToken& token : answer.tokens) second.tokens.push_back(token.id);
  EXPECT_TRUE(Collect(*scheduler_->Submit({second}, kLong), 1)[0] == RunAlone(second));
  EXPECT_EQ(ValueOf(metrics_.Render({}), "tern_reused_tokens_total"), 5 * kPage);
  running->Cancel();
  ExpectAllReturned();
}

// Sequences that share pages fail in one step, on several threads: every page comes back, and
// nobody begins with their numbers.
TEST_F(PrefixTest, NumbersThatGoBadGiveEveryPageBack) {
  const TempFolder folder;
  WriteServeModel(folder / "model.gguf");
  engine::ModelWeights weights = engine::LoadModel(folder / "model.gguf");
  weights.final_norm[0] = std::nanf("");
  const engine::Engine engine(std::move(weights), 4);
  engine_ = &engine;
  Start(64);
  for (int round = 0; round < 20; ++round) {
    std::vector<GenerationRequest> choices(8, Request(3 * kPage, 5, 2));
    const auto ticket = scheduler_->Submit(choices, kLong);
    EXPECT_THROW(Collect(*ticket, choices.size()), serve::ApiError);
  }
  ExpectAllReturned();
  EXPECT_EQ(scheduler_->gauges().kv_pages_kept, 0);
  scheduler_.reset();  // Before its engine
}

// Log probabilities of a prompt need all its rows.
TEST_F(PrefixTest, EchoedPromptsAreRunWhole) {
  Start(64);
  GenerationRequest request = Request(100, 4, 2);
  Collect(*scheduler_->Submit({request}, kLong), 1);
  request.prompt_logprobs = true;
  request.top_logprobs = 1;
  EXPECT_TRUE(Collect(*scheduler_->Submit({request}, kLong), 1)[0] == RunAlone(request));
  EXPECT_EQ(ValueOf(metrics_.Render({}), "tern_reused_tokens_total"), 0);
}

// Many texts with three beginnings in a cache for three of them: kept pages come and go, sequences
// are preempted, and not a bit changes.
TEST_F(PrefixTest, ASmallCacheChangesNothing) {
  std::vector<GenerationRequest> requests;
  std::vector<Result> alone;
  for (uint64_t seed = 0; seed < 18; ++seed) {
    GenerationRequest request = Request(70 + static_cast<int64_t>(seed), 60, seed);
    const auto begin = RandomTokens(40 + 20 * static_cast<int64_t>(seed % 2), 265, 500 + seed % 3);
    std::copy(begin.begin(), begin.end(), request.tokens.begin());
    requests.push_back(request);
    alone.push_back(RunAlone(request));
  }
  for (int64_t pages : {5, 9, 20}) {
    Start(pages, /*max_running=*/6, /*step_rows=*/24);
    for (int round = 0; round < 2; ++round) {
      std::vector<std::shared_ptr<Ticket>> tickets;
      for (const auto& request : requests) tickets.push_back(scheduler_->Submit({request}, kLong));
      for (size_t i = 0; i < tickets.size(); ++i)
        EXPECT_TRUE(Collect(*tickets[i], 1)[0] == alone[i]) << pages << ", " << i;
    }
    ExpectAllReturned();
  }
  EXPECT_GT(ValueOf(metrics_.Render({}), "tern_reused_tokens_total"), 0);
  EXPECT_GT(ValueOf(metrics_.Render({}), "tern_preempted_total"), 0);
}

}  // namespace
}  // namespace tern::testing
