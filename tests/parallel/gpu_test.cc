// Which device a rank gets where there is no GPU for it: on machines without one, and anywhere with
// more ranks than GPUs. What happens with one is for scripts/gpu_check.
#include "parallel/gpu.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace tern::parallel {
namespace {

class GpuTest : public ::testing::Test {
 protected:
  GpuTest() {
    topology_.world = topology_.local_world = 1000;
    topology_.rank = topology_.local_rank = 999;
  }
  Topology topology_;
};

TEST_F(GpuTest, CpuAsksNobody) { EXPECT_EQ(TakeDevice("cpu", topology_), c10::kCPU); }

TEST_F(GpuTest, AutoTakesTheCpu) { EXPECT_EQ(TakeDevice("auto", topology_), c10::kCPU); }

// The error says what was looked for and the way out: the plug-in's build, the driver, or fewer
// ranks.
TEST_F(GpuTest, CudaIsRefusedWithTheReason) {
  try {
    TakeDevice("cuda", topology_);
    ADD_FAILURE() << "not refused";
  } catch (const ResourceError& error) {
    const std::string message = error.what();
    EXPECT_TRUE(message.starts_with("device: cuda: ")) << message;
    const std::string why = WhyNoGpu().empty() ? "GPUs for 1000 ranks" : WhyNoGpu();
    EXPECT_NE(message.find(why), std::string::npos) << message;
    const bool has_plugin = message.find("libtern_torch_cuda.so") == std::string::npos;
    EXPECT_NE(message.find(has_plugin ? "device: cpu" : "scripts/setup --cuda"), std::string::npos)
        << message;
  }
}

}  // namespace
}  // namespace tern::parallel
