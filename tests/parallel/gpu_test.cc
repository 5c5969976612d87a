// Which device a rank gets, on machines without a GPU; what happens on one is for
// scripts/gpu_check.
#include "parallel/gpu.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"

namespace tern::parallel {
namespace {

class GpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (WhyNoGpu().empty()) GTEST_SKIP() << "this machine has a GPU";
  }
  Topology topology_;
};

TEST_F(GpuTest, CpuAsksNobody) { EXPECT_EQ(TakeDevice("cpu", topology_), c10::kCPU); }

TEST_F(GpuTest, AutoTakesTheCpu) { EXPECT_EQ(TakeDevice("auto", topology_), c10::kCPU); }

// The error says what was looked for and the way out: the plug-in's build, or the driver.
TEST_F(GpuTest, CudaIsRefusedWithTheReason) {
  topology_.local_world = 2;
  topology_.local_rank = 1;
  try {
    TakeDevice("cuda", topology_);
    ADD_FAILURE() << "not refused";
  } catch (const ResourceError& error) {
    const std::string message = error.what();
    EXPECT_TRUE(message.starts_with("device: cuda: ")) << message;
    EXPECT_NE(message.find(WhyNoGpu()), std::string::npos) << message;
    const bool has_plugin = message.find("libtern_torch_cuda.so") == std::string::npos;
    EXPECT_NE(message.find(has_plugin ? "device: cpu" : "scripts/setup --cuda"), std::string::npos)
        << message;
  }
}

}  // namespace
}  // namespace tern::parallel
