// The choice of the instruction set: what the processor has, what TERN_ISA asks for.
#include "kernels/common/isa.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "base/error.h"

namespace tern::kernels {
namespace {

bool IsHere(std::string_view name) {
  const auto isas = AvailableIsas();
  return std::any_of(isas.begin(), isas.end(), [&](Isa isa) { return ToString(isa) == name; });
}

TEST(IsaTest, TheListGoesFromScalarToTheBest) {
  const auto isas = AvailableIsas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(isas.front(), Isa::kScalar);
  EXPECT_EQ(isas.back(), BestIsa());
  EXPECT_TRUE(std::is_sorted(isas.begin(), isas.end()));
}

TEST(IsaTest, WhatTheProcessorLacksIsRefusedAndChangesNothing) {
  const Isa before = ActiveIsa();
  for (Isa isa : {Isa::kScalar, Isa::kNeon, Isa::kAvx2, Isa::kAvxVnni, Isa::kAvx512}) {
    if (IsHere(ToString(isa))) {
      SetActiveIsa(isa);
      EXPECT_EQ(ActiveIsa(), isa);
      SetActiveIsa(before);
    } else {
      EXPECT_THROW(SetActiveIsa(isa), UsageError);
      EXPECT_EQ(ActiveIsa(), before);
    }
  }
}

// The environment is read once a process: with TERN_ISA set this test wants to be run alone
// (scripts/check_neon does so).
TEST(IsaEnvironmentTest, PicksAmongWhatIsHere) {
  const char* asked = std::getenv("TERN_ISA");
  if (asked == nullptr) {
    EXPECT_EQ(ActiveIsa(), BestIsa());
  } else if (::testing::UnitTest::GetInstance()->test_to_run_count() > 1) {
    GTEST_SKIP() << "TERN_ISA is set: other tests of this process have chosen";
  } else if (IsHere(asked)) {
    EXPECT_EQ(ToString(ActiveIsa()), asked);
    std::printf("takes %s\n", asked);
  } else {
    EXPECT_THROW(ActiveIsa(), UsageError);
  }
}

}  // namespace
}  // namespace tern::kernels
