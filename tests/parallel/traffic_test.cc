// What collectives send and what links must carry at least, by hand.
#include "parallel/traffic.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace tern::parallel {
namespace {

TEST(TrafficTest, OneMachineHasNoFarBytes) {
  const RankLayout layout = {4, 4};
  const Traffic sum = SumTraffic(layout, 1000);
  EXPECT_EQ(sum.sent_bytes, 1500);
  EXPECT_EQ(sum.near_bytes, 1500);
  EXPECT_EQ(sum.far_bytes, 0);
  const Traffic gather = GatherTraffic(layout, 10);
  EXPECT_EQ(gather.payload_bytes, 30);
  EXPECT_EQ(gather.near_bytes, 30);
  EXPECT_EQ(gather.far_bytes, 0);
  const Traffic exchange = ExchangeTraffic(layout, 2, {1, 2, 4, 8});
  EXPECT_EQ(exchange.payload_bytes, 11) << "what stays is not sent";
  EXPECT_EQ(exchange.near_bytes, 11);
  EXPECT_EQ(exchange.far_bytes, 0);
}

// Two machines of four.
TEST(TrafficTest, AMachineGetsWhatOthersHaveOnce) {
  const RankLayout layout = {8, 4};
  // Inside: 2 x 3/4; each of four ranks takes a quarter to the other machine and back: 2 x 1/2 / 4.
  const Traffic sum = SumTraffic(layout, 1600);
  EXPECT_EQ(sum.sent_bytes, 2800);
  EXPECT_EQ(sum.near_bytes, 2400);
  EXPECT_EQ(sum.far_bytes, 400);
  // Four parts come in through four ports: one each; the other six of seven come from inside.
  const Traffic gather = GatherTraffic(layout, 10);
  EXPECT_EQ(gather.far_bytes, 10);
  EXPECT_EQ(gather.near_bytes, 60);
  const Traffic exchange = ExchangeTraffic(layout, 5, {1, 2, 4, 8, 16, 32, 64, 128});
  EXPECT_EQ(exchange.far_bytes, 15);
  EXPECT_EQ(exchange.near_bytes, 208);
}

TEST(TrafficTest, OneRankAMachineSendsAllBetween) {
  const RankLayout layout = {8, 1};
  EXPECT_EQ(SumTraffic(layout, 800).near_bytes, 0);
  EXPECT_EQ(SumTraffic(layout, 800).far_bytes, 1400);
  EXPECT_EQ(GatherTraffic(layout, 10).near_bytes, 0);
  EXPECT_EQ(GatherTraffic(layout, 10).far_bytes, 70);
}

TEST(TrafficTest, OneKindIsOneCollective) {
  Traffic total;
  total += SumTraffic({2, 2}, 8);
  total += SumTraffic({2, 2}, 8);
  EXPECT_EQ(total.calls, 2);
  EXPECT_EQ(total.payload_bytes, 16);
  EXPECT_THROW(total += GatherTraffic({2, 2}, 8), BugError);
}

}  // namespace
}  // namespace tern::parallel
