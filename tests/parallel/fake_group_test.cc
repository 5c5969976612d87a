// A group without the others: they answer as if they had what this rank has, and what is counted is
// what a real group counts.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "parallel/group.h"
#include "parallel/reducer.h"
#include "tests/parallel/rank_threads.h"

namespace tern::parallel {
namespace {

std::unique_ptr<Group> Fake(int rank, int ranks) {
  Topology topology;
  topology.rank = topology.local_rank = rank;
  topology.world = topology.local_world = ranks;
  return Group::Fake(topology);
}

TEST(FakeGroupTest, OthersHaveWhatThisRankHas) {
  const auto group = Fake(1, 3);
  EXPECT_EQ(group->rank(), 1);
  EXPECT_EQ(group->size(), 3);
  const at::Tensor sum = at::arange(5, at::kFloat);
  group->AllReduceSum(sum, "a").Wait();
  EXPECT_TRUE(at::equal(sum, 3 * at::arange(5, at::kFloat)));
  const at::Tensor mine = at::arange(4, at::kByte), all = at::empty({3, 4}, at::kByte);
  group->AllGather(mine, all, "b").Wait();
  EXPECT_TRUE(at::equal(all, mine.expand({3, 4})));
  // Ranks get 1, 2 and 3 rows from each: this one two, which are rows 1 and 2 of all.
  const at::Tensor send = at::arange(6, at::kFloat).unsqueeze(1), receive = at::empty({6, 1});
  group->AllToAll(send, {1, 2, 3}, receive, {2, 2, 2}, "c").Wait();
  EXPECT_TRUE(at::equal(receive.view({3, 2}), at::arange(1, 3, at::kFloat).expand({3, 2})));
  EXPECT_EQ(group->GatherTexts("x"), (std::vector<std::string>{"x", "x", "x"}));
  EXPECT_EQ(group->FromRoot("y"), "y");
  bool worked = false;
  group->OnRoot([&] { worked = true; });
  EXPECT_FALSE(worked) << "rank 1 is not the root";
  Fake(0, 3)->OnRoot([&] { worked = true; });
  EXPECT_TRUE(worked);
  EXPECT_THROW(group->process_group()->getBackend(c10::DeviceType::CPU)->barrier(), c10::Error);
}

// Buckets of libtorch's Reducer over one rank of 512: the sums are 512 times its gradients.
TEST(FakeGroupTest, ReducerRuns) {
  const auto group = Fake(511, 512);
  const at::Tensor a = at::ones({300, 300}).set_requires_grad(true),
                   b = at::ones({7}).set_requires_grad(true);
  GradientReducer reducer(*group, {a, b}, /*bucket_bytes=*/1000);
  group->ResetTraffic();
  reducer.BeforeBackward(/*last=*/true);
  torch::autograd::backward({(2 * a).sum() + (b * b).sum()}, {});
  EXPECT_TRUE(at::equal(a.grad(), at::full({300, 300}, 1024.0f)));
  EXPECT_TRUE(at::equal(b.grad(), at::full({7}, 1024.0f)));
  EXPECT_EQ(group->traffic().at("gradients").payload_bytes, 4 * (300 * 300 + 7));
}

}  // namespace
}  // namespace tern::parallel
