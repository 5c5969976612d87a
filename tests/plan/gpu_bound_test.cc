// Bounds on GPUs, recomputed by hand from the published peaks.
#include "plan/gpu_bound.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"

namespace tern::plan {
namespace {

TrainPlan Plan(int64_t ranks, int64_t bytes) {
  TrainPlan plan;
  plan.flops = 989.5e12 * 100 * 16;  // 100 steps of 16 GPU seconds
  plan.memory_bytes = 79e9;
  plan.ranks = ranks;
  plan.per_machine = std::min<int64_t>(ranks, 8);
  const parallel::RankLayout layout = {ranks, plan.per_machine};
  if (ranks > 1) plan.sent["values"] = parallel::GatherTraffic(layout, bytes);
  return plan;
}

TEST(GpuBoundTest, TheLongerOfWorkAndExchangeCounts) {
  const GpuPeaks& h100 = GpuByName("h100");
  // Seven others send 64.3 GB each over NVLink, 450 GB/s.
  const GpuBound by_work = BoundOnGpus(Plan(8, 450'000'000'000 / 7), 100, h100);
  EXPECT_NEAR(by_work.work_seconds, 2, 1e-9);
  EXPECT_NEAR(by_work.exchange_seconds, 1, 1e-9);
  EXPECT_NEAR(by_work.seconds, 200, 1e-6);
  EXPECT_TRUE(by_work.fits);
  // Sixteen GPUs are two machines: what the other machine's eight have comes in through eight ports
  // of 400 Gb/s, an eighth through each; the rest over NVLink.
  const GpuBound by_network = BoundOnGpus(Plan(16, 100'000'000'000), 100, h100);
  EXPECT_NEAR(by_network.work_seconds, 1, 1e-9);
  EXPECT_NEAR(by_network.far_bytes, 100e9, 1);
  EXPECT_NEAR(by_network.near_bytes, 1400e9, 1);
  EXPECT_NEAR(by_network.exchange_seconds, 1400.0 / 450, 1e-9);  // 2 s between the machines
  EXPECT_NEAR(by_network.seconds, 1400.0 / 4.5, 1e-6);
}

// An exchange's bytes are for one rank each: most go through the sender's own port.
TEST(GpuBoundTest, ExchangesBetweenMachinesAreBoundByTheNetwork) {
  TrainPlan plan = Plan(16, 0);
  plan.sent.clear();
  plan.sent["gradients"] =
      parallel::ExchangeTraffic({16, 8}, 3, std::vector<int64_t>(16, 50'000'000'000));
  const GpuBound bound = BoundOnGpus(plan, 100, GpuByName("h100"));
  EXPECT_NEAR(bound.near_bytes, 350e9, 1);
  EXPECT_NEAR(bound.far_bytes, 400e9, 1);
  EXPECT_NEAR(bound.exchange_seconds, 8, 1e-9);
}

TEST(GpuBoundTest, MemoryIsCompared) {
  EXPECT_FALSE(BoundOnGpus(Plan(1, 0), 100, GpuByName("rtx4090")).fits);
  TrainPlan offloaded = Plan(1, 0);
  offloaded.host_bytes = offloaded.memory_bytes - 23e9;
  EXPECT_TRUE(BoundOnGpus(offloaded, 100, GpuByName("rtx4090")).fits);
}

TEST(GpuBoundTest, WhatIsNotPublishedIsRefused) {
  EXPECT_THROW(GpuByName("h200"), UsageError);
  EXPECT_NO_THROW(BoundOnGpus(Plan(8, 1), 100, GpuByName("rtx4090")));
  EXPECT_THROW(BoundOnGpus(Plan(9, 1), 100, GpuByName("rtx4090")), RecipeError);
}

TEST(GpuBoundTest, TheTextSaysThatNothingWasMeasured) {
  const TrainPlan plan = Plan(16, 4'050'000'000'000 / 14);
  const GpuPeaks& h100 = GpuByName("h100");
  const std::string text = FormatBound(plan, h100, BoundOnGpus(plan, 100, h100));
  EXPECT_NE(text.find("on 16 x H100 SXM 80 GB, from published peaks; nothing was measured"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("at least 15 min"), std::string::npos) << text;
}

}  // namespace
}  // namespace tern::plan
