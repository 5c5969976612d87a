// Scores and texts of the engine's adapter: equal to a plain pass over each request alone, bit for
// bit, whatever is shared, however requests are grouped, on any number of threads.
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "engine/generate.h"
#include "engine/session.h"
#include "tasks/prefix_tree.h"
#include "tests/tasks/tiny_scorer.h"

namespace tern::testing {
namespace {

using tasks::EngineScorerOptions;
using tasks::GenerateRequest;
using tasks::PrefixNode;
using tasks::ScoreRequest;
using tasks::TokenScore;

constexpr int64_t kVocab = 265;

// Requests that share much: a preamble, contexts within it, choices within those, some equal, some
// prefixes of others, one with nothing in common.
std::vector<ScoreRequest> Nested(uint64_t seed) {
  RandomStream random(seed, "nested");
  const auto tokens = [&](size_t count) {
    std::vector<int32_t> ids;
    for (size_t i = 0; i < count; ++i)
      ids.push_back(static_cast<int32_t>(random.NextU64() % kVocab));
    return ids;
  };
  const std::vector<int32_t> preamble = tokens(70);
  std::vector<ScoreRequest> requests;
  for (int question = 0; question < 5; ++question) {
    std::vector<int32_t> context = preamble;
    for (const int32_t id : tokens(random.NextU64() % 40)) context.push_back(id);
    for (int choice = 0; choice < 4; ++choice) {
      ScoreRequest request{context, static_cast<int64_t>(context.size())};
      for (const int32_t id : tokens(1 + random.NextU64() % 6)) request.tokens.push_back(id);
      requests.push_back(request);
    }
    requests.push_back(requests.back());
    requests.back().tokens.pop_back();  // A prefix, maybe without a scored token
  }
  requests.push_back({tokens(200), 1});
  requests.push_back({tokens(2), 1});
  requests.push_back({tokens(1), 1});
  requests.push_back({tokens(301), 300});  // As long as it may be: the last token is predicted
  return requests;
}

std::vector<std::vector<TokenScore>> Score(tasks::ModelScorer& scorer,
                                           const std::vector<ScoreRequest>& requests) {
  std::vector<std::vector<TokenScore>> all(requests.size());
  size_t calls = 0;
  scorer.Score(requests, [&](size_t r, std::vector<TokenScore> scores) {
    all[r] = std::move(scores);
    ++calls;
  });
  EXPECT_EQ(calls, requests.size());
  return all;
}

// Against the definition, in double, from the logits of a session. CrossEntropyLoss sums 265 floats
// in 16 lanes: relative error below 2^-24 * 32 of a sum whose logarithm is then taken, and values
// stay below 64, whose last place is 2^-18; 1e-4 is ten times all of it.
TEST(EngineScorerTest, ScoresAreThoseOfEachRequestAlone) {
  TinyScorer tiny;
  const std::vector<ScoreRequest> requests = Nested(1);
  const auto scores = Score(*tiny, requests);
  for (size_t r = 0; r < requests.size(); ++r) {
    const ScoreRequest& request = requests[r];
    const size_t scored = request.tokens.size() - static_cast<size_t>(request.first_scored);
    ASSERT_EQ(scores[r].size(), scored);
    if (scored == 0) continue;
    const std::vector<float> logits =
        engine::Session(tiny.engine(), 300)
            .Append(std::span(request.tokens).first(request.tokens.size() - 1),
                    engine::LogitsOf::kAll);
    for (size_t i = 0; i < scored; ++i) {
      const size_t at = static_cast<size_t>(request.first_scored) + i;
      const std::span<const float> row = std::span(logits).subspan((at - 1) * kVocab, kVocab);
      double sum = 0;
      for (const float z : row) sum += std::exp(static_cast<double>(z));
      const auto target = static_cast<size_t>(request.tokens[at]);
      EXPECT_NEAR(scores[r][i].logprob, row[target] - std::log(sum), 1e-4);
      const auto best = std::max_element(row.begin(), row.end()) - row.begin();
      EXPECT_EQ(scores[r][i].greedy, static_cast<size_t>(best) == target);
    }
  }
}

TEST(EngineScorerTest, BitsDoNotDependOnBatchesThreadsAndWhatCameBefore) {
  TinyScorer one;
  const std::vector<ScoreRequest> requests = Nested(2);
  const auto want = Score(*one, requests);
  const auto expect_equal = [&](const std::vector<std::vector<TokenScore>>& got) {
    for (size_t r = 0; r < want.size(); ++r) {
      ASSERT_EQ(got[r].size(), want[r].size());
      for (size_t i = 0; i < want[r].size(); ++i) {
        EXPECT_EQ(got[r][i].logprob, want[r][i].logprob);
        EXPECT_EQ(got[r][i].greedy, want[r][i].greedy);
      }
    }
  };
  expect_equal(Score(*one, requests));  // Now with a kept prefix
  for (const int64_t batch_tokens : {1, 100, 1000}) {
    EngineScorerOptions options;
    options.batch_tokens = batch_tokens;
    TinyScorer other(options, 2);
    expect_equal(Score(*other, requests));
  }
}

TEST(EngineScorerTest, SharedPrefixesRunOnce) {
  TinyScorer tiny;
  const std::vector<int32_t> context = RandomTokens(200, kVocab, 5);
  std::vector<ScoreRequest> requests;
  for (int32_t choice = 0; choice < 4; ++choice) {
    requests.push_back({context, 200});
    for (const int32_t id : {choice, 7, 8}) requests.back().tokens.push_back(id);
  }
  Score(*tiny, requests);
  EXPECT_EQ(tiny->tokens_run(), 200 + 4 * 2);
  // The context is kept: only its last token runs again, for its logits.
  Score(*tiny, requests);
  EXPECT_EQ(tiny->tokens_run(), 200 + 4 * 2 + 1 + 4 * 2);
}

TEST(EngineScorerTest, GeneratesWhatOneTextAloneWouldGet) {
  TinyScorer tiny({}, 2);
  std::vector<GenerateRequest> requests;
  std::vector<std::string> prompts;
  for (int i = 0; i < 20; ++i) {
    prompts.push_back(std::string(40, 'T') + std::string(static_cast<size_t>(i % 7), 'o') + "be");
    std::vector<int32_t> ids = tiny->tokenizer()->Encode(prompts.back());
    ids.insert(ids.begin(), tiny->tokenizer()->bos_id());
    requests.push_back({ids, 1 + i % 9, {"e", "oo"}});
  }
  requests[3].max_tokens = 1000;  // Until the context is full, unless it stops before
  requests[3].stop = {};
  std::vector<std::string> texts(requests.size());
  tiny->Generate(requests, [&](size_t r, std::string text) { texts[r] = std::move(text); });
  for (size_t r = 0; r < requests.size(); ++r) {
    engine::GenerateOptions options;
    options.max_tokens = requests[r].max_tokens;
    options.stop = requests[r].stop;
    options.cache = kernels::KvType::kF32;
    EXPECT_EQ(texts[r], engine::Generate(tiny.engine(), prompts[r], options, {}).text) << r;
  }
}

TEST(EngineScorerTest, StreamGivesTheLogitsOfASession) {
  TinyScorer tiny;
  const std::vector<int32_t> tokens = RandomTokens(150, kVocab, 9);
  const auto stream = tiny->Stream(tokens);
  std::vector<float> got;
  for (const int64_t count : {1, 64, 85}) {
    const std::vector<float> rows = stream->Next(count);
    got.insert(got.end(), rows.begin(), rows.end());
  }
  EXPECT_EQ(got, engine::Session(tiny.engine(), 300).Append(tokens, engine::LogitsOf::kAll));
}

TEST(EngineScorerTest, RefusesWhatDoesNotFit) {
  TinyScorer tiny;
  const auto score = [&](std::vector<int32_t> tokens) { Score(*tiny, {{std::move(tokens), 1}}); };
  EXPECT_THROW(score(std::vector<int32_t>(302, 1)), InputError);
  EXPECT_THROW(score({1, kVocab}), InputError);
  EXPECT_THROW(score({-1, 1}), InputError);
  EngineScorerOptions options;
  options.max_length = 301;
  EXPECT_THROW(TinyScorer{options}, UsageError);
  options = {};
  options.batch_tokens = 0;
  EXPECT_THROW(TinyScorer{options}, UsageError);
}

// Every token but the last is in exactly one node of the path of its request, scored tokens apart
// from others, and a shared beginning is one node.
TEST(PrefixTreeTest, PathsCoverTheirRequests) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const std::vector<ScoreRequest> requests = Nested(seed);
    const std::vector<PrefixNode> tree = tasks::BuildPrefixTree(requests);
    std::vector<int64_t> covered(requests.size(), 0);
    std::vector<bool> seen(tree.size(), false);
    for (size_t n = 0; n < tree.size(); ++n) {
      EXPECT_TRUE(tree[n].root || seen[n]);
      for (const size_t child : tree[n].children) {
        EXPECT_GT(child, n);
        EXPECT_EQ(tree[child].begin, tree[n].end);
        seen[child] = true;
      }
      const std::vector<int32_t>& first = requests[tree[n].requests[0]].tokens;
      for (const size_t r : tree[n].requests) {
        EXPECT_EQ(covered[r], tree[n].begin);
        covered[r] = tree[n].end;
        EXPECT_GE(tasks::CommonPrefix(requests[r].tokens, first), tree[n].end);
        const int64_t scored = requests[r].first_scored;
        EXPECT_TRUE(tree[n].end <= scored || tree[n].begin >= scored);
      }
    }
    for (size_t r = 0; r < requests.size(); ++r)
      EXPECT_EQ(covered[r], static_cast<int64_t>(requests[r].tokens.size()) - 1);
  }
  EXPECT_TRUE(tasks::BuildPrefixTree({}).empty());
}

}  // namespace
}  // namespace tern::testing
