// Many sequences in one pass (decoder.h) on one paged cache (kv_cache.h): the same bits as each
// alone, for forks, cut-back sequences and any cut of the prompts; full caches and wrong calls
// leave every sequence as it was.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "engine/decoder.h"
#include "engine/model_source.h"
#include "engine/session.h"
#include "tests/engine/tiny_files.h"
#include "tests/testing/temp_folder.h"

namespace tern::testing {
namespace {

using engine::Decoder;
using engine::Engine;
using engine::KvCache;
using engine::LogitsOf;
using engine::Sequence;
using engine::Session;
using kernels::KvType;

using Logits = std::vector<float>;

class BatchTest : public ::testing::Test {
 protected:
  std::vector<int32_t> Tokens(int64_t count, uint64_t seed) const {
    return RandomTokens(count, engine_.config().vocab_size, seed);
  }
  Logits Alone(const std::vector<int32_t>& tokens, KvType type, LogitsOf which = LogitsOf::kLast) {
    return Session(engine_, 0, type).Append(tokens, which);
  }
  static std::span<const int32_t> Part(const std::vector<int32_t>& tokens, size_t begin,
                                       size_t end) {
    return std::span(tokens).subspan(begin, end - begin);
  }

  engine::ModelWeights Load(const TinyModel& model, ArchName arch) const {
    WriteGguf(model, arch, folder_ / "model.gguf", {});
    return engine::LoadModel(folder_ / "model.gguf");
  }

  TempFolder folder_;
  Engine engine_{Load(MakeTinyModel(TinyConfig(ArchName::kLlama), 31), ArchName::kLlama), 2};
};

TEST_F(BatchTest, EverySequenceHasTheBitsItHasAlone) {
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kInt8}) {
    KvCache cache(engine_.config(), 40, type);
    Decoder decoder(engine_, cache, engine_.config().context_length);
    const std::vector<int32_t> a = Tokens(70, 1), b = Tokens(3, 2), c = Tokens(33, 3);
    Sequence sa(cache), sb(cache), sc(cache);
    const Decoder::Request first[] = {{&sa, Part(a, 0, 40), LogitsOf::kLast},
                                      {&sb, Part(b, 0, 2), LogitsOf::kAll}};
    std::vector<Logits> logits = decoder.Run(first);
    EXPECT_EQ(logits[0], Alone({a.begin(), a.begin() + 40}, type));
    EXPECT_EQ(logits[1], Alone({b.begin(), b.begin() + 2}, type, LogitsOf::kAll));
    const Decoder::Request second[] = {{&sb, Part(b, 2, 3)}, {&sc, c}, {&sa, Part(a, 40, 70)}};
    logits = decoder.Run(second);
    EXPECT_EQ(logits[0], Alone(b, type));
    EXPECT_EQ(logits[1], Alone(c, type));
    EXPECT_EQ(logits[2], Alone(a, type));
  }
}

TEST_F(BatchTest, PromptsLongerThanAPassShareIt) {
  ModelConfig config = TinyConfig(ArchName::kQwen3);
  config.context_length = 640;
  const TinyModel model = MakeTinyModel(config, 5);
  const Engine engine(Load(model, ArchName::kQwen3), 2);
  KvCache cache(engine.config(), 60, KvType::kF16);
  Decoder decoder(engine, cache, 640);
  const std::vector<int32_t> a = RandomTokens(600, config.vocab_size, 1),
                             b = RandomTokens(257, config.vocab_size, 2);
  Sequence sa(cache), sb(cache);
  const Decoder::Request requests[] = {{&sb, b, LogitsOf::kAll}, {&sa, a, LogitsOf::kAll}};
  const std::vector<Logits> logits = decoder.Run(requests);
  EXPECT_EQ(logits[0], Session(engine, 0, KvType::kF16).Append(b, LogitsOf::kAll));
  EXPECT_EQ(logits[1], Session(engine, 0, KvType::kF16).Append(a, LogitsOf::kAll));
}

TEST_F(BatchTest, ForksShareWholePagesAndGoTheirOwnWay) {
  KvCache cache(engine_.config(), 20, KvType::kF16);
  Decoder decoder(engine_, cache, engine_.config().context_length);
  const std::vector<int32_t> prefix = Tokens(70, 4);  // Two whole pages and six tokens
  Sequence trunk(cache);
  const Decoder::Request first[] = {{&trunk, prefix}};
  decoder.Run(first);
  EXPECT_EQ(cache.free_pages(), 17);
  Sequence left = trunk.Fork(), right = trunk.Fork();
  EXPECT_EQ(cache.free_pages(), 15);  // A page of its own each, the two whole ones shared
  const std::vector<int32_t> l = Tokens(40, 5), r = Tokens(1, 6);
  const Decoder::Request second[] = {{&left, l}, {&right, r}, {&trunk, l}};
  const std::vector<Logits> logits = decoder.Run(second);
  std::vector<int32_t> whole = prefix;
  whole.insert(whole.end(), l.begin(), l.end());
  EXPECT_EQ(logits[0], Alone(whole, KvType::kF16));
  EXPECT_EQ(logits[2], logits[0]);
  whole.resize(70);
  whole.push_back(r[0]);
  EXPECT_EQ(logits[1], Alone(whole, KvType::kF16));
}

TEST_F(BatchTest, WhatIsCutBackIsForgottenAndSharedPagesAreNotWritten) {
  KvCache cache(engine_.config(), 20, KvType::kF16);
  Decoder decoder(engine_, cache, engine_.config().context_length);
  const std::vector<int32_t> prefix = Tokens(64, 7), more = Tokens(5, 8);
  Sequence trunk(cache);
  const Decoder::Request first[] = {{&trunk, prefix}};
  decoder.Run(first);
  Sequence fork = trunk.Fork();
  fork.Truncate(40);  // Into a page that the trunk has, too
  const Decoder::Request second[] = {{&fork, more}, {&trunk, more}};
  const std::vector<Logits> logits = decoder.Run(second);
  std::vector<int32_t> whole = prefix;
  whole.insert(whole.end(), more.begin(), more.end());
  EXPECT_EQ(logits[1], Alone(whole, KvType::kF16));
  whole.assign(prefix.begin(), prefix.begin() + 40);
  whole.insert(whole.end(), more.begin(), more.end());
  EXPECT_EQ(logits[0], Alone(whole, KvType::kF16));
}

TEST_F(BatchTest, PagesComeBack) {
  KvCache cache(engine_.config(), 6, KvType::kInt8);
  {
    Sequence a(cache);
    a.Reserve(100);
    EXPECT_EQ(cache.free_pages(), 2);
    Sequence b = std::move(a);
    EXPECT_EQ(cache.free_pages(), 2);
  }
  EXPECT_EQ(cache.free_pages(), 6);
}

TEST_F(BatchTest, FullCachesAndWrongCallsLeaveEverySequenceAsItWas) {
  KvCache cache(engine_.config(), 4, KvType::kF16);
  Decoder decoder(engine_, cache, engine_.config().context_length);
  const std::vector<int32_t> a = Tokens(60, 9), b = Tokens(64, 10), wrong{3, -1};
  Sequence sa(cache), sb(cache);
  const Decoder::Request first[] = {{&sa, Part(a, 0, 50)}};
  decoder.Run(first);
  const Decoder::Request too_much[] = {
      {&sa, Part(a, 50, 60)},
      {&sb, b},
  };
  const Decoder::Request much_too_much[] = {{&sb, b}, {&sa, b}};
  EXPECT_NO_THROW(decoder.Run(too_much));  // Just fits
  sb.Truncate(0);
  sa.Truncate(50);
  EXPECT_THROW(decoder.Run(much_too_much), ResourceError);
  const Decoder::Request bad_token[] = {{&sb, b}, {&sa, wrong}};
  EXPECT_THROW(decoder.Run(bad_token), InputError);
  const Decoder::Request nothing[] = {{&sb, b}, {&sa, {}}};
  EXPECT_THROW(decoder.Run(nothing), InputError);
  EXPECT_EQ(sa.size(), 50);
  EXPECT_EQ(sb.size(), 0);
  EXPECT_EQ(cache.free_pages(), 2);
  const Decoder::Request rest[] = {{&sa, Part(a, 50, 60)}};
  EXPECT_EQ(decoder.Run(rest)[0], Alone(a, KvType::kF16));
}

}  // namespace
}  // namespace tern::testing
