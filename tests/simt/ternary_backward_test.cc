// The CUDA backward pass of BitLinear, run from the very source that nvcc compiles, against the
// scalar oracle: bit for bit where gradients are small integers (every partial sum is exact), else
// within a derived tolerance; over sizes around every tile edge, in order, with shuffled schedules
// and with several blocks under way; tails neither read nor written beyond; and no bank conflict.
#include "kernels/ternary_backward/ternary_backward.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/common/half.h"
#include "kernels/ternary_backward/round_gradient.cu"  // The launchers' host code is the emulator's, too.
#include "kernels/ternary_backward/ternary_backward.cu"
#include "kernels/ternary_pack/t2.h"
#include "tests/simt/device_buffer.h"

namespace tern::kernels {
namespace {

// What no one may take part in a result: a NaN of bf16.
constexpr uint16_t kPoison = 0x7FC1;

struct Problem {
  // Integers: dY from -8 to 8, of which 2^24 / (8 * 128) terms add up exactly.
  Problem(int m, int n, int k, bool integers, int slack = 0)
      : m(m),
        n(n),
        k(k),
        lddy(static_cast<int>(GradientColumns(n)) + slack),
        ldx(static_cast<int>(T2PaddedK(k)) + 2 * slack),
        w(n * T2RowBytes(k), 0),
        x(static_cast<int64_t>(m) * ldx, 99),
        dy(static_cast<int64_t>(m) * lddy, kPoison) {
    std::mt19937 random(static_cast<uint32_t>(m * 1000003 + n * 1009 + k));
    std::vector<int8_t> row(static_cast<size_t>(k));
    for (int i = 0; i < n; ++i) {
      for (int8_t& v : row) v = static_cast<int8_t>(static_cast<int>(random() % 3) - 1);
      PackT2Row(row.data(), k, w.data() + i * T2RowBytes(k));
    }
    for (int b = 0; b < m; ++b) {
      for (int i = 0; i < k; ++i) x.data()[b * ldx + i] = static_cast<int8_t>(random());
      for (int i = 0; i < GradientColumns(n); ++i) {
        const double value = integers ? static_cast<double>(random() % 17) - 8.0
                                      : random() * 0x1p-31 * std::exp2(random() % 8) - 1.0;
        dy.data()[b * lddy + i] = simt::EncodeBf16(i < n ? value : 0.0);
      }
    }
  }

  TernaryInputGradientArgs InputArgs(float* dx, int lddx, bool add) const {
    return {dy.data(), w.data(), dx, kBeta, add, m, n, k, lddy, lddx};
  }
  TernaryWeightGradientArgs WeightArgs(float* dw, int lddw) const {
    return {dy.data(), x.data(), dw, m, n, k, lddy, ldx, lddw};
  }

  // The launchers, under these options; -3 and multiples of 1 / 4 in dX before.
  std::vector<float> Input(const simt::LaunchOptions& options = {}, bool add = false) const {
    DeviceBuffer<float> dx(static_cast<int64_t>(m) * k, -3.0f);
    Under(options,
          [&] { return LaunchTernaryInputGradient(InputArgs(dx.data(), k, add), nullptr); });
    return dx.ToVector();
  }
  std::vector<float> Weight(const simt::LaunchOptions& options = {}) const {
    DeviceBuffer<float> dw(static_cast<int64_t>(n) * k, -3.0f);
    Under(options, [&] { return LaunchTernaryWeightGradient(WeightArgs(dw.data(), k), nullptr); });
    return dw.ToVector();
  }
  std::vector<float> InputOracle(bool add = false) const {
    std::vector<float> dx(static_cast<size_t>(m * k), -3.0f);
    TernaryInputGradientRef(InputArgs(dx.data(), k, add));
    return dx;
  }
  std::vector<float> WeightOracle() const {
    std::vector<float> dw(static_cast<size_t>(n * k), -3.0f);
    TernaryWeightGradientRef(WeightArgs(dw.data(), k));
    return dw;
  }

  template <class Launch>
  static void Under(const simt::LaunchOptions& options, const Launch& launch) {
    simt::EmulatorOptions() = options;
    const char* error = launch();
    simt::EmulatorOptions() = {};
    ASSERT_STREQ(error, nullptr);
  }

  float Dy(int b, int i) const { return FloatFromBfloat(dy.data()[b * lddy + i]); }
  int Code(int row, int column) const {
    std::vector<int8_t> codes(static_cast<size_t>(k));
    UnpackT2Row(w.data() + row * T2RowBytes(k), k, codes.data());
    return codes[static_cast<size_t>(column)];
  }

  static constexpr float kBeta = 0.0371f;
  int m, n, k, lddy, ldx;
  DeviceBuffer<uint8_t> w;
  DeviceBuffer<int8_t> x;
  DeviceBuffer<uint16_t> dy;
};

// Each size at, below and above a tile edge, not in every combination: a tail of one dimension does
// not depend on the others. 0: nothing to write, or a sum of nothing.
constexpr std::array<std::array<int, 3>, 11> kSizes = {{{1, 1, 1},
                                                        {0, 40, 130},
                                                        {40, 0, 130},
                                                        {40, 33, 0},
                                                        {127, 31, 128},
                                                        {31, 127, 129},
                                                        {32, 128, 127},
                                                        {128, 32, 255},
                                                        {129, 33, 36},
                                                        {33, 129, 257},
                                                        {7, 300, 20}}};

TEST(TernaryBackwardCudaTest, EqualsTheOracleWhereSumsAreExact) {
  for (const auto& [m, n, k] : kSizes) {
    const Problem problem(m, n, k, /*integers=*/true);
    EXPECT_EQ(problem.Input(), problem.InputOracle()) << m << " " << n << " " << k;
    EXPECT_EQ(problem.Input({}, true), problem.InputOracle(true)) << m << " " << n << " " << k;
    EXPECT_EQ(problem.Weight(), problem.WeightOracle()) << m << " " << n << " " << k;
  }
  const Problem tall(300, 24, 8, true);  // More tokens than all stages hold.
  EXPECT_EQ(tall.Weight(), tall.WeightOracle());
}

// Products are exact in fp32 (8 + 8 bits). A term passes one addition a term at most; a tensor core
// may cut instead of round and align to 24 bits, so each loses at most 2^-23 of a partial sum,
// which is at most sum |terms|. Then beta and the oracle's own two roundings, and an addition.
TEST(TernaryBackwardCudaTest, StaysWithinTheRoundingOfItsSums) {
  for (const auto& [m, n, k] : {std::array{37, 333, 50}, {200, 20, 140}}) {
    const Problem problem(m, n, k, /*integers=*/false);
    const std::vector<float> dx = problem.Input({}, true), dw = problem.Weight();
    const std::vector<float> want_dx = problem.InputOracle(true), want_dw = problem.WeightOracle();
    for (int column = 0; column < k; column += 7) {
      for (int b = 0; b < m; ++b) {
        double size = 0.0;
        for (int i = 0; i < n; ++i)
          size += std::fabs(problem.Dy(b, i)) * std::abs(problem.Code(i, column));
        const auto at = static_cast<size_t>(b * k + column);
        const double bound = (n + 4) * 0x1p-23 * size * Problem::kBeta + 3.0 * 0x1p-23;
        ASSERT_NEAR(dx[at], want_dx[at], bound) << b << " " << column;
      }
      for (int i = 0; i < n; ++i) {
        double size = 0.0;
        for (int b = 0; b < m; ++b)
          size += std::fabs(problem.Dy(b, i) * problem.x.data()[b * problem.ldx + column]);
        const auto at = static_cast<size_t>(i * k + column);
        ASSERT_NEAR(dw[at], want_dw[at], (m + 1) * 0x1p-23 * size) << i << " " << column;
      }
    }
  }
}

// Every code and every byte, one term a sum: conversion to bf16 is exact.
TEST(TernaryBackwardCudaTest, CodesAreExact) {
  for (int byte = -128; byte < 128; ++byte) {
    const auto low = static_cast<uint8_t>(byte), high = static_cast<uint8_t>(-byte);
    const uint32_t pair = BytePair(0xAB00CD00u | static_cast<uint32_t>(high) << 16 | low);
    EXPECT_EQ(FloatFromBfloat(static_cast<uint16_t>(pair)), static_cast<float>(byte));
    EXPECT_EQ(FloatFromBfloat(static_cast<uint16_t>(pair >> 16)),
              static_cast<float>(static_cast<int8_t>(high)));
  }
  for (uint32_t code = 0; code < 3; ++code) {
    const uint32_t pair = TernaryPair((0x3333u & ~0x30u) | code << 4 | (2 - code) << 20, 10);
    EXPECT_EQ(FloatFromBfloat(static_cast<uint16_t>(pair)), 2.0f * static_cast<float>(code) - 2.0f);
    EXPECT_EQ(FloatFromBfloat(static_cast<uint16_t>(pair >> 16)),
              2.0f - 2.0f * static_cast<float>(code));
  }
}

// Two tiles each way and nine steps: every stage is used twice. Sums have one order: the same bits.
TEST(TernaryBackwardCudaTest, ShuffledSchedulesAndInterleavedBlocksChangeNothing) {
  const Problem problem(130, 270, 140, /*integers=*/false);
  const std::vector<float> dx = problem.Input(), dw = problem.Weight();
  for (const simt::LaunchOptions& options :
       {simt::LaunchOptions{.shuffle = true, .seed = 1},
        simt::LaunchOptions{.shuffle = true, .seed = 2, .resident_blocks = 3},
        simt::LaunchOptions{.resident_blocks = 2}}) {
    EXPECT_EQ(problem.Input(options), dx);
    EXPECT_EQ(problem.Weight(options), dw);
  }
}

TEST(TernaryBackwardCudaTest, StridesAndWhatLiesBesideAreKept) {
  const Problem problem(5, 20, 138, /*integers=*/true, /*slack=*/8);
  const int ld = 150, rows = 130;  // A whole tile and more.
  for (const bool weight : {false, true}) {
    const int results = weight ? 20 : 5;
    DeviceBuffer<float> out(rows * ld, -7.0f);
    Problem::Under({}, [&] {
      return weight ? LaunchTernaryWeightGradient(problem.WeightArgs(out.data(), ld), nullptr)
                    : LaunchTernaryInputGradient(problem.InputArgs(out.data(), ld, false), nullptr);
    });
    const std::vector<float> want = weight ? problem.WeightOracle() : problem.InputOracle();
    for (int row = 0; row < rows; ++row) {
      for (int i = 0; i < ld; ++i) {
        const bool inside = row < results && i < 138;
        ASSERT_EQ(out.data()[row * ld + i],
                  inside ? want[static_cast<size_t>(row * 138 + i)] : -7.0f)
            << weight << " " << row << " " << i;
      }
    }
  }
}

struct Rounded {
  std::vector<uint16_t> plain, scaled;
};

template <class Run>
Rounded Round(const DeviceBuffer<float>& dy, const std::vector<float>& gamma, int m, int n,
              int lddy, int ldo, const Run& run) {
  DeviceBuffer<uint16_t> plain(static_cast<int64_t>(m) * ldo, kPoison);
  DeviceBuffer<uint16_t> scaled(static_cast<int64_t>(m) * ldo, kPoison);
  run(RoundGradientArgs{dy.data(), gamma.data(), plain.data(), scaled.data(), m, n, lddy, ldo});
  return {plain.ToVector(), scaled.ToVector()};
}

// Ties both ways, subnormals, infinities and the largest numbers among them.
TEST(RoundGradientCudaTest, EqualsTheOracle) {
  const std::array<float, 9> special = {0.0f,      -0.0f,    1.00390625f, 1.01171875f, 1e-40f,
                                        -3.39e38f, INFINITY, -INFINITY,   3.4e38f};
  const int sizes[][3] = {{1, 1, 0}, {3, 7, 1}, {5, 8, 0}, {64, 33, 3}, {2, 1300, 4}, {1, 2048, 0}};
  for (const auto& [m, n, slack] : sizes) {
    std::mt19937 random(static_cast<uint32_t>(m * 1009 + n));
    const int lddy = n + slack, ldo = static_cast<int>(GradientColumns(n)) + 8 * slack;
    DeviceBuffer<float> dy(static_cast<int64_t>(m) * lddy, NAN);
    std::vector<float> gamma;
    for (int b = 0; b < m; ++b) {
      gamma.push_back(static_cast<float>(random() % 1000) * 0.0137f + 1e-5f);
      for (int i = 0; i < n; ++i) {
        dy.data()[b * lddy + i] = random() % 8 == 0 ? special[random() % special.size()]
                                                    : static_cast<float>(random() * 0x1p-31 - 1.0);
      }
    }
    const Rounded got = Round(dy, gamma, m, n, lddy, ldo, [](const RoundGradientArgs& args) {
      EXPECT_STREQ(LaunchRoundGradient(args, nullptr), nullptr);
    });
    const Rounded want = Round(dy, gamma, m, n, lddy, ldo, RoundGradientRef);
    EXPECT_EQ(got.plain, want.plain) << m << " " << n;
    EXPECT_EQ(got.scaled, want.scaled) << m << " " << n;
    const Rounded one = Round(dy, gamma, m, n, lddy, ldo, [](RoundGradientArgs args) {
      args.scaled = nullptr;
      args.gamma = nullptr;
      EXPECT_STREQ(LaunchRoundGradient(args, nullptr), nullptr);
    });
    EXPECT_EQ(one.plain, want.plain);
    const Rounded other = Round(dy, gamma, m, n, lddy, ldo, [](RoundGradientArgs args) {
      args.plain = nullptr;
      EXPECT_STREQ(LaunchRoundGradient(args, nullptr), nullptr);
    });
    EXPECT_EQ(other.scaled, want.scaled);
  }
}

// The scale is a quotient, not a product with 1 / 127: seen where one bf16 lies nearest to the
// gradient times the one, and its neighbour to that times the other. One in some 10^5 is such.
TEST(RoundGradientCudaTest, DividesByTheTopCode) {
  constexpr int kFound = 8;
  std::mt19937 random(7);
  std::vector<float> gamma, values;
  for (int tries = 0; tries < 20'000'000 && gamma.size() < kFound; ++tries) {
    const auto g = static_cast<float>(random() * 0x1p-31 + 1.0);
    const auto value = static_cast<float>(random() * 0x1p-31 + 1.0);
    const float right = value * (g / 127.0f), wrong = value * (g * (1.0f / 127.0f));
    if (right == wrong || simt::EncodeBf16(right) == simt::EncodeBf16(wrong)) continue;
    gamma.push_back(g);
    values.push_back(value);
  }
  ASSERT_EQ(gamma.size(), kFound);
  const DeviceBuffer<float> dy(values);
  const Rounded got = Round(dy, gamma, kFound, 1, 1, 8, [](const RoundGradientArgs& args) {
    EXPECT_STREQ(LaunchRoundGradient(args, nullptr), nullptr);
  });
  EXPECT_EQ(got.scaled, Round(dy, gamma, kFound, 1, 1, 8, RoundGradientRef).scaled);
}

template <class Args, class Launch, class Change>
void ExpectRefused(const char* part, Args args, const Launch& launch, const Change& change) {
  change(args);
  const char* error = launch(args, nullptr);
  EXPECT_TRUE(error != nullptr && std::string(error).find(part) != std::string::npos) << part;
}

TEST(TernaryBackwardCudaTest, LaunchersRefuseWhatTheKernelsCannotTake) {
  const Problem problem(9, 20, 130, true);
  std::vector<float> out(9 * 130 + 20 * 130);
  const TernaryInputGradientArgs input = problem.InputArgs(out.data(), 130, false);
  const TernaryWeightGradientArgs weight = problem.WeightArgs(out.data(), 130);
  const auto both = [&](const char* part, const auto& change) {
    ExpectRefused(part, input, LaunchTernaryInputGradient, change);
    ExpectRefused(part, weight, LaunchTernaryWeightGradient, change);
  };
  both("lddy", [](auto& args) { args.lddy += 4; });
  both("lddy", [](auto& args) { args.lddy = 16; });
  both("aligned", [](auto& args) { args.dy += 1; });
  both("negative", [](auto& args) { args.k = -1; });
  both("2^30", [](auto& args) { args.n = int64_t{1} << 30; });
  const auto in = [&](const char* part, const auto& change) {
    ExpectRefused(part, input, LaunchTernaryInputGradient, change);
  };
  in("lddx", [](auto& args) { args.lddx = 129; });
  in("aligned", [](auto& args) { args.w_t2 += 8; });
  in("split", [](auto& args) { args.m = 8388481; });
  const auto dw = [&](const char* part, const auto& change) {
    ExpectRefused(part, weight, LaunchTernaryWeightGradient, change);
  };
  dw("lddw", [](auto& args) { args.lddw = 129; });
  dw("ldx", [](auto& args) { args.ldx = 130; });
  dw("ldx", [](auto& args) { args.ldx = 128; });
  dw("aligned", [](auto& args) { args.x += 8; });
  std::vector<uint16_t> rounded(9 * 24 + 8);
  auto* aligned =
      reinterpret_cast<uint16_t*>((reinterpret_cast<uintptr_t>(rounded.data()) + 15) / 16 * 16);
  const RoundGradientArgs round{out.data(), out.data(), aligned, nullptr, 9, 20, 20, 24};
  const auto rounding = [&](const char* part, const auto& change) {
    ExpectRefused(part, round, LaunchRoundGradient, change);
  };
  EXPECT_STREQ(LaunchRoundGradient(round, nullptr), nullptr);
  rounding("negative", [](auto& args) { args.m = -1; });
  rounding("lddy", [](auto& args) { args.lddy = 19; });
  rounding("ldo", [](auto& args) { args.ldo = 20; });
  rounding("ldo", [](auto& args) { args.ldo = 16; });
  rounding("aligned", [](auto& args) { args.plain += 1; });
  rounding("split", [](auto& args) { args.m = int64_t{1} << 31; });
}

// Shared memory is read and filled without a bank conflict; global memory is read and written in
// whole sectors.
TEST(TernaryBackwardCudaTest, AddressesDoNotConflict) {
  const Problem problem(128, 128, 128, true);
  DeviceBuffer<float> out(128 * 128, 0.0f);
  simt::LaunchOptions options{.count_traffic = true};
  options.dynamic_shared_bytes = kInputGradSharedBytes;
  const InputGradientDeviceArgs input{
      problem.dy.data(), problem.w.data(), out.data(), 0.5f, false, 128, 128, 128, 128, 128, 128};
  const simt::LaunchStats dx = simt::Launch(
      {1}, {kGradThreads}, [&] { TernaryInputGradientKernel(input); }, options);
  options.dynamic_shared_bytes = kWeightGradSharedBytes;
  const WeightGradientDeviceArgs weight{
      problem.dy.data(), problem.x.data(), out.data(), 128, 128, 128, 128, 128, 128, 128};
  const simt::LaunchStats dw = simt::Launch(
      {1}, {kGradThreads}, [&] { TernaryWeightGradientKernel(weight); }, options);
  std::vector<float> gamma(128, 1.0f);
  DeviceBuffer<uint16_t> rounded(128 * 128, 0);
  const RoundGradientArgs rounding{out.data(), gamma.data(), rounded.data(), nullptr, 128, 128,
                                   128,        128};
  const simt::LaunchStats round = simt::Launch(
      {16}, {kRoundThreads}, [&] { RoundGradientKernel(rounding, 32); }, {.count_traffic = true});
  std::printf("%s%s%s", simt::TrafficTable(dx).c_str(), simt::TrafficTable(dw).c_str(),
              simt::TrafficTable(round).c_str());
  EXPECT_EQ(dx.traffic.size(), 6u);
  EXPECT_EQ(dw.traffic.size(), 5u);
  EXPECT_EQ(round.traffic.size(), 2u);
  for (const simt::LaunchStats* stats : {&dx, &dw, &round}) {
    for (const simt::SiteTraffic& site : stats->traffic) {
      EXPECT_EQ(site.transactions, site.ideal) << site.file << ":" << site.line;
    }
  }
}

// The one barrier a step matters: without it a warp reads what another has not copied yet.
#if defined(TERN_SIMT_TSAN)
TEST(TernaryBackwardCudaDeathTest, RaceDetectorFindsAMissingBarrier) {
  const Problem problem(70, 70, 40, true);
  EXPECT_DEATH(problem.Input({.skip_block_barriers = true}),
               "data race.*(\n.*)*TernaryInputGradientKernel");
  EXPECT_DEATH(problem.Weight({.skip_block_barriers = true}),
               "data race.*(\n.*)*TernaryWeightGradientKernel");
}
#elif defined(__SANITIZE_ADDRESS__)
TEST(TernaryBackwardCudaDeathTest, ReadingBeforeAnotherThreadWaitedIsReported) {
  const Problem problem(70, 70, 40, true);
  EXPECT_DEATH(problem.Input({.skip_block_barriers = true}), "use-after-poison");
  EXPECT_DEATH(problem.Weight({.skip_block_barriers = true}), "use-after-poison");
}
#else
TEST(TernaryBackwardCudaTest, MissingBarrierGivesWrongResults) {
  const Problem problem(70, 70, 40, true);
  EXPECT_NE(problem.Input({.skip_block_barriers = true}), problem.InputOracle());
  EXPECT_NE(problem.Weight({.skip_block_barriers = true}), problem.WeightOracle());
}
#endif

}  // namespace
}  // namespace tern::kernels
