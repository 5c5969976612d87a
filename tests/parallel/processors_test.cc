// Threads of a rank follow from what the ranks of its machine may use.
#include "parallel/processors.h"

#include <gtest/gtest.h>
#include <sched.h>

namespace tern::parallel {
namespace {

TEST(ProcessorsTest, RanksThatMayUseTheSameDivideThem) {
  const std::vector<std::string> places = {"a 0,1,2,3", "a 0,1,2,3", "b 0,1,2,3"};
  const ProcessorShare first = ShareProcessors(places, 0), last = ShareProcessors(places, 2);
  EXPECT_EQ(first.sharing, 2);
  EXPECT_EQ(first.threads(), 2);
  EXPECT_FALSE(first.bound);
  EXPECT_EQ(last.threads(), 4) << "alone on its machine";
}

// As srun --cpus-per-task 4 binds them: each has its four.
TEST(ProcessorsTest, BoundRanksHaveTheirOwn) {
  const std::vector<std::string> places = {"a 0,1,2,3", "a 4,5,6,7"};
  const ProcessorShare share = ShareProcessors(places, 1);
  EXPECT_EQ(share.threads(), 4);
  EXPECT_TRUE(share.bound);
  EXPECT_EQ(share.by_all, 8);
}

// As mpirun --bind-to socket: two ranks on each of two sockets.
TEST(ProcessorsTest, RanksOfASocketDivideIt) {
  const std::vector<std::string> places = {"a 0,1,2", "a 3,4,5", "a 0,1,2", "a 3,4,5"};
  for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(ShareProcessors(places, rank).threads(), 1);
  EXPECT_EQ(ShareProcessors(places, 0).sharing, 2);
  EXPECT_EQ(ShareProcessors({"a 0", "a 0", "a 0"}, 1).threads(), 1) << "more ranks than processors";
}

TEST(ProcessorsTest, ThisProcess) {
  cpu_set_t set;
  ASSERT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  const ProcessorShare share = ShareProcessors({ProcessorPlace()}, 0);
  EXPECT_EQ(share.usable, CPU_COUNT(&set));
  EXPECT_EQ(share.threads(), CPU_COUNT(&set));
}

}  // namespace
}  // namespace tern::parallel
