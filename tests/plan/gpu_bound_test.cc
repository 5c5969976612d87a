// Bounds on GPUs, recomputed by hand from the published peaks.
#include "plan/gpu_bound.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace tern::plan {
namespace {

TrainPlan Plan(int64_t ranks, double sent_bytes) {
  TrainPlan plan;
  plan.flops = 989.5e12 * 100 * 16;  // 100 steps of 16 GPU seconds
  plan.memory_bytes = 79e9;
  plan.ranks = ranks;
  if (ranks > 1) plan.sent = {{"gradients", sent_bytes / 2}, {"values", sent_bytes / 2}};
  return plan;
}

TEST(GpuBoundTest, TheLongerOfWorkAndExchangeCounts) {
  const GpuPeaks& h100 = GpuByName("h100");
  const GpuBound by_work = BoundOnGpus(Plan(8, 450e9), 100, h100);
  EXPECT_NEAR(by_work.work_seconds, 2, 1e-9);
  EXPECT_NEAR(by_work.exchange_seconds, 1, 1e-9);
  EXPECT_NEAR(by_work.seconds, 200, 1e-6);
  EXPECT_TRUE(by_work.fits);
  // Sixteen GPUs are two machines: a GPU's port of 400 Gb/s is what they share.
  const GpuBound by_network = BoundOnGpus(Plan(16, 450e9), 100, h100);
  EXPECT_NEAR(by_network.work_seconds, 1, 1e-9);
  EXPECT_NEAR(by_network.exchange_seconds, 9, 1e-9);
  EXPECT_NEAR(by_network.seconds, 900, 1e-6);
}

TEST(GpuBoundTest, MemoryIsCompared) {
  EXPECT_FALSE(BoundOnGpus(Plan(1, 0), 100, GpuByName("rtx4090")).fits);
}

TEST(GpuBoundTest, WhatIsNotPublishedIsRefused) {
  EXPECT_THROW(GpuByName("h200"), UsageError);
  EXPECT_NO_THROW(BoundOnGpus(Plan(8, 1), 100, GpuByName("rtx4090")));
  EXPECT_THROW(BoundOnGpus(Plan(9, 1), 100, GpuByName("rtx4090")), RecipeError);
}

TEST(GpuBoundTest, TheTextSaysThatNothingWasMeasured) {
  const TrainPlan plan = Plan(16, 450e9);
  const GpuPeaks& h100 = GpuByName("h100");
  const std::string text = FormatBound(plan, h100, BoundOnGpus(plan, 100, h100));
  EXPECT_NE(text.find("on 16 x H100 SXM 80 GB, from published peaks; nothing was measured"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("at least 15 min"), std::string::npos) << text;
}

}  // namespace
}  // namespace tern::plan
