// Ranks (threads here) meet, compare themselves, and talk; what goes wrong is named.
#include "parallel/group.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <mutex>

#include "parallel/reducer.h"
#include "tests/parallel/rank_threads.h"

namespace tern::parallel {
namespace {

TEST(GroupTest, NumbersAndTextsComeInRankOrder) {
  RunRankThreads(3, [](Group& group) {
    const int rank = group.rank();
    const auto numbers = group.GatherNumbers({1.0 * rank, 10.0 + rank});
    const auto texts = group.GatherTexts(std::string(static_cast<size_t>(rank) * 3, 'x'));
    ASSERT_EQ(numbers.size(), 3u);
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(numbers[static_cast<size_t>(i)], (std::vector<double>{1.0 * i, 10.0 + i}));
      EXPECT_EQ(texts[static_cast<size_t>(i)].size(), static_cast<size_t>(3 * i));
    }
    EXPECT_EQ(group.FromRoot(rank == 0 ? "root" : "other"), "root");
  });
}

TEST(GroupTest, CollectivesMoveWhatTheySay) {
  RunRankThreads(3, [](Group& group) {
    const int64_t rank = group.rank();
    const at::Tensor sum = at::full({1000}, 1.0f + static_cast<float>(rank));
    group.AllReduceSum(sum, "a").Wait();
    EXPECT_TRUE(at::equal(sum, at::full({1000}, 6.0f)));

    const at::Tensor mine = at::full({5}, rank, at::kByte), all = at::empty({3, 5}, at::kByte);
    group.AllGather(mine, all, "b").Wait();
    EXPECT_TRUE(at::equal(all, at::arange(3, at::kByte).unsqueeze(1).expand({3, 5})));

    // Rank i gets i + 1 rows from each.
    const at::Tensor send = at::arange(6, at::kFloat).add(10.0f * static_cast<float>(rank));
    const at::Tensor receive = at::empty({3 * (rank + 1)});
    const std::vector<int64_t> got(3, rank + 1);
    group.AllToAll(send.unsqueeze(1).contiguous(), {1, 2, 3}, receive.unsqueeze(1), got, "c")
        .Wait();
    for (int64_t from = 0; from < 3; ++from) {
      const int64_t first = rank * (rank + 1) / 2;
      EXPECT_TRUE(at::equal(
          receive.narrow(0, from * (rank + 1), rank + 1),
          at::arange(first, first + rank + 1, at::kFloat).add(10.0f * static_cast<float>(from))));
    }
    EXPECT_EQ(group.traffic().at("a").sent_bytes, 2.0 * 2 / 3 * 4000);
    EXPECT_EQ(group.traffic().at("b").sent_bytes, 10.0);
    EXPECT_EQ(group.traffic().at("c").sent_bytes, static_cast<double>(4 * (6 - (rank + 1))));
    for (const char* kind : {"a", "b", "c"}) EXPECT_EQ(group.traffic().at(kind).calls, 1);
  });
}

TEST(GroupTest, RootWorksWhileOthersWaitAndItsErrorIsHeard) {
  std::mutex mutex;
  int done = 0;
  RunRankThreads(2, [&](Group& group) {
    group.OnRoot([&] {
      const std::lock_guard lock(mutex);
      ++done;
    });
    {
      const std::lock_guard lock(mutex);
      EXPECT_EQ(done, 1);
    }
    try {
      group.OnRoot([] { throw InputError("no such file"); });
      ADD_FAILURE();
    } catch (const InputError&) {
      EXPECT_TRUE(group.is_root());
    } catch (const RankLost& error) {
      EXPECT_FALSE(group.is_root());
      EXPECT_NE(std::string(error.what()).find("no such file"), std::string::npos);
    }
  });
}

// What all ranks are told when one of them has another `item`.
std::string Disagreement(const std::string& item) {
  const StoreServer store;
  std::vector<std::string> messages(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      GroupOptions options;
      options.must_agree = {{"recipe", "r1"}, {"binary", "b1"}};
      if (rank == 1) options.must_agree[item] = "else";
      try {
        const Group group(ThreadTopology(store, rank, 2), options);
      } catch (const UsageError& error) {
        messages[static_cast<size_t>(rank)] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(messages[0], messages[1]);
  return messages[0];
}

// Four ranks as two rows and two columns.
TEST(GroupTest, PartsTalkAmongThemselvesAndCountInTheWhole) {
  RunRankThreads(4, [](Group& group) {
    const int rank = group.rank();
    const auto row = group.Part(rank / 2 * 2, 1, 2), column = group.Part(rank % 2, 2, 2);
    EXPECT_EQ(row->rank(), rank % 2);
    EXPECT_EQ(column->rank(), rank / 2);
    EXPECT_EQ(row->size(), 2);
    const auto numbers = row->GatherNumbers({1.0 * rank});
    EXPECT_EQ(numbers[0][0], rank / 2 * 2);
    EXPECT_EQ(numbers[1][0], rank / 2 * 2 + 1);
    const at::Tensor sum = at::full({3}, static_cast<float>(rank));
    column->AllReduceSum(sum, "columns").Wait();
    EXPECT_TRUE(at::equal(sum, at::full({3}, 2.0f * static_cast<float>(rank % 2) + 2)));
    EXPECT_EQ(group.traffic().at("columns").payload_bytes, 12);
    EXPECT_EQ(group.traffic().at("columns").sent_bytes, 12) << "2 (n-1)/n of two ranks";
    EXPECT_EQ(group.traffic().at("control").payload_bytes, 8);
    group.GatherNumbers({0});  // Parts may go in any order after it.
  });
}

// The long time limit of the first step lets a rank come late; after it the short one does not.
TEST(GroupTest, FirstStepHasATimeLimitOfItsOwn) {
  GroupOptions options;
  options.first_step_timeout_s = 60;
  options.step_timeout_s = 0.3;
  std::string message;
  RunRankThreads(
      2,
      [&](Group& group) {
        const auto part = group.Part(0, 1, 2);
        const auto late = [&](Group& among) {
          if (group.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(1));
          among.GatherNumbers({1});
        };
        late(group);
        late(*part);
        group.UseFirstStepTimeout(false);
        try {
          late(*part);
          EXPECT_EQ(group.rank(), 1) << "rank 0 has waited too long";
        } catch (const RankLost& error) {
          if (group.rank() == 0) message = error.what();
        }
      },
      options);
  EXPECT_NE(message.find("parallel.step_timeout_s = 0.3"), std::string::npos) << message;
}

TEST(GroupTest, RanksWithAnotherRecipeOrBuildAreNamed) {
  for (const char* item : {"recipe", "binary"}) {
    const std::string message = Disagreement(item);
    EXPECT_NE(message.find("rank 1 "), std::string::npos) << message;
    EXPECT_NE(message.find(StrCat("another ", item)), std::string::npos) << message;
  }
}

TEST(GroupTest, MissingAndDoubledRanksAreNamed) {
  const StoreServer store;
  GroupOptions options;
  options.start_timeout_s = 0.2;
  try {
    const Group group(ThreadTopology(store, 1, 3), options);
    ADD_FAILURE();
  } catch (const ResourceError& error) {
    EXPECT_NE(std::string(error.what()).find("rank 0, 2 did not arrive"), std::string::npos)
        << error.what();
  }
  EXPECT_THROW(Group(ThreadTopology(store, 1, 3), options), UsageError);  // Rank 1 was there.
}

// One line instead of libtorch's stack for every attempt.
TEST(GroupTest, NobodyAtTheMeetingPointIsSaidInOneLine) {
  Topology t;
  {
    const StoreServer closed;  // Its port is free again below.
    t = ThreadTopology(closed, 1, 2);
  }
  testing::internal::CaptureStderr();
  std::string message;
  try {
    OpenStore(t, 0.3);
  } catch (const ResourceError& error) {
    message = error.what();
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_NE(message.find("nobody answers at 127.0.0.1"), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

TEST(GroupTest, RankThatLeavesWithAReasonIsTheOthersMessage) {
  std::string message;
  RunRankThreads(2, [&](Group& group) {
    if (group.rank() == 1) {
      group.PostFailure("disk full");
      return;
    }
    try {
      for (int i = 0; i < 1000; ++i) group.GatherNumbers({1});
      ADD_FAILURE();
    } catch (const RankLost& error) {
      message = error.what();
    }
  });
  EXPECT_NE(message.find("rank 1 failed: disk full"), std::string::npos) << message;
}

// Two leaves, two micro-batches: only the last backward talks, and .grad is the sum over all.
TEST(GradientReducerTest, SumsOverRanksAndMicroBatches) {
  RunRankThreads(3, [](Group& group) {
    const float r = static_cast<float>(group.rank());
    const at::Tensor a = at::ones({300, 300}).set_requires_grad(true),
                     b = at::ones({7}).set_requires_grad(true);
    GradientReducer reducer(group, {a, b}, /*bucket_bytes=*/1000);
    for (int step = 0; step < 3; ++step) {
      group.ResetTraffic();
      for (const bool last : {false, true}) {
        reducer.BeforeBackward(last);
        const at::Tensor loss = (a * (r + 1)).sum() + (b * b * (last ? r : 10 * r)).sum();
        torch::autograd::backward({loss}, {});
        EXPECT_EQ(group.traffic().contains("gradients"), last);
      }
      EXPECT_TRUE(at::equal(a.grad(), at::full({300, 300}, 2.0f * 6)));
      EXPECT_TRUE(at::equal(b.grad(), at::full({7}, 2.0f * 3 + 20.0f * 3)));
      EXPECT_EQ(group.traffic().at("gradients").sent_bytes, 2.0 * 2 / 3 * 4 * (300 * 300 + 7));
      a.mutable_grad() = at::Tensor();
      b.mutable_grad() = at::Tensor();
    }
  });
}

}  // namespace
}  // namespace tern::parallel
