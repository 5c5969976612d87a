// The sums of small integers are exact in fp32, so the blocks of a Hessian are compared for
// equality with the whole product.
#include "ptq/hessian.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace tern::ptq {
namespace {

TEST(HessianTest, IsTheWholeProduct) {
  auto generator = at::detail::createCPUGenerator(1);
  for (const int64_t k : {1, 7, 255, 256, 511, 512, 515, 1030}) {
    const at::Tensor x_MK = at::randint(-8, 9, {64, k}, generator, at::kFloat);
    Hessian hessian;
    hessian.Add(x_MK.slice(0, 0, 3));
    hessian.Add(x_MK.slice(0, 3));
    EXPECT_EQ(hessian.tokens(), 64);
    EXPECT_TRUE(at::equal(hessian.Mean(), x_MK.t().mm(x_MK) * (2.0 / 64))) << k << " inputs";
  }
}

}  // namespace
}  // namespace tern::ptq
