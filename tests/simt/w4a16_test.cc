// The CUDA 4-bit products, run from the very source that nvcc compiles, against fp64 within a
// derived tolerance, in order, with shuffled schedules and with several blocks under way;
// dequantization exactly, for every code and zero point; and no bank conflict.
#include "kernels/w4a16/w4a16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "kernels/common/half.h"
#include "kernels/w4a16/w4a16.cu"  // The launcher's host code is the emulator's, too.
#include "kernels/w4a16/w4a16_gemm.cuh"
#include "kernels/w4a16/w4a16_gemv.cuh"
#include "tests/simt/device_buffer.h"

namespace tern::kernels {
namespace {

template <bool kBf16>
float Decode(uint16_t bits) {
  return kBf16 ? FloatFromBfloat(bits) : FloatFromHalf(bits);
}
template <bool kBf16>
uint16_t Encode(double value) {
  return kBf16 ? simt::EncodeBf16(value) : simt::EncodeF16(value);
}

template <bool kBf16>
struct Problem {
  Problem(int m, int n, int k, bool asymmetric)
      : m(m),
        n(n),
        k(k),
        groups(static_cast<int>(W4Groups(k))),
        ldx(groups * 128 + 16),
        asymmetric(asymmetric),
        w(n * W4RowBytes(k), 0),
        zeros(groups * n, 8),
        scales(groups * n, 0),
        x(static_cast<int64_t>(m) * ldx, 0),
        codes(static_cast<size_t>(n * k)) {
    std::mt19937 random(static_cast<uint32_t>(m * 1000003 + n * 1009 + k));
    for (uint8_t& v : codes) v = static_cast<uint8_t>(random() % 16);
    for (int i = 0; i < n; ++i) {
      PackW4Row(codes.data() + static_cast<size_t>(i * k), k, w.data() + i * W4RowBytes(k));
    }
    for (int i = 0; i < groups * n; ++i) {
      if (asymmetric) zeros.data()[i] = static_cast<uint8_t>(random() % 16);
      scales.data()[i] = Encode<kBf16>(0.01 + random() % 1000 * 1e-4);
    }
    for (int b = 0; b < m; ++b) {
      for (int i = 0; i < ldx; ++i) {  // Beyond the groups: what no one may read.
        const double value = i < k ? random() * 0x1p-31 - 1.0 : i < 128 * groups ? 0.0 : NAN;
        x.data()[b * ldx + i] = Encode<kBf16>(value);
      }
    }
  }

  W4A16DeviceArgs Args(float* y, int ldy) const {
    return {w.data(),
            scales.data(),
            asymmetric ? zeros.data() : nullptr,
            x.data(),
            nullptr,
            y,
            m,
            n,
            groups,
            ldx,
            ldy};
  }

  simt::LaunchStats Gemv(float* y, int ldy, const simt::LaunchOptions& options) const {
    const W4A16DeviceArgs args = Args(y, ldy);
    const auto blocks = static_cast<unsigned>((n + kW4GemvRows - 1) / kW4GemvRows);
    return simt::Launch(
        {blocks}, {kW4GemvThreads}, [&] { W4A16GemvKernel<kBf16>(args); }, options);
  }
  simt::LaunchStats Gemm(float* y, int ldy, simt::LaunchOptions options) const {
    const W4A16DeviceArgs args = Args(y, ldy);
    const auto rows = static_cast<unsigned>((n + kW4GemmRows - 1) / kW4GemmRows);
    const auto tokens = static_cast<unsigned>((m + kW4GemmTokens - 1) / kW4GemmTokens);
    options.dynamic_shared_bytes = kW4GemmSharedBytes;
    return simt::Launch(
        {rows, tokens}, {kW4GemmThreads}, [&] { W4A16GemmKernel<kBf16>(args); }, options);
  }
  std::vector<float> Run(bool gemm, const simt::LaunchOptions& options = {}) const {
    DeviceBuffer<float> y(static_cast<int64_t>(m) * n, -1e9f);
    gemm ? Gemm(y.data(), n, options) : Gemv(y.data(), n, options);
    return y.ToVector();
  }

  // Products of 16-bit floats with code - zero are exact in fp32. A term then passes at most 128 +
  // 1 roundings in its group, one a group and 8 where warps join; a tensor core may cut instead of
  // round and align to 24 bits, so each loses at most 2^-23 of a partial sum, which is at most
  // sum |x w|. Allows any order.
  void ExpectNear(const std::vector<float>& y, int ldy) const {
    for (int b = 0; b < m; ++b) {
      for (int row = 0; row < n; ++row) {
        double sum = 0.0, size = 0.0;
        for (int i = 0; i < k; ++i) {
          const int at = i / 128 * n + row;
          const double term = static_cast<double>(Decode<kBf16>(x.data()[b * ldx + i])) *
                              (codes[static_cast<size_t>(row * k + i)] - zeros.data()[at]) *
                              Decode<kBf16>(scales.data()[at]);
          sum += term;
          size += std::fabs(term);
        }
        ASSERT_NEAR(y[static_cast<size_t>(b * ldy + row)], sum, (137 + groups) * 0x1p-23 * size)
            << "m " << b << " of " << m << " n " << row << " of " << n << " k " << k;
      }
    }
  }

  int m, n, k, groups, ldx;
  bool asymmetric;
  DeviceBuffer<uint8_t> w, zeros;
  DeviceBuffer<uint16_t> scales, x;
  std::vector<uint8_t> codes;
};

template <bool kBf16>
void ExpectExactPairs() {
  for (uint32_t zero = 0; zero < 16; ++zero) {
    for (int code = 0; code < 16; ++code) {
      std::vector<uint8_t> codes(128);
      for (int i = 0; i < 128; ++i)
        codes[static_cast<size_t>(i)] = static_cast<uint8_t>((code + i) % 16);
      uint32_t words[16];
      PackW4Row(codes.data(), 128, reinterpret_cast<uint8_t*>(words));
      uint32_t pair[4];
      W4Pairs<kBf16>(words[0], W4ZeroPair<kBf16>(zero), pair);
      for (int e = 0; e < 8; ++e) {
        const auto half = static_cast<uint16_t>(pair[e / 2] >> (16 * (e % 2)));
        EXPECT_EQ(Decode<kBf16>(half), static_cast<float>(codes[static_cast<size_t>(e)]) - zero);
      }
    }
  }
}

TEST(W4A16CudaTest, DequantizationIsExact) {
  ExpectExactPairs<false>();
  ExpectExactPairs<true>();
}

TEST(W4A16CudaTest, GemvIsTheFormula) {
  for (int m : {1, 2, 7, 8}) {
    for (int n : {1, 15, 40}) {
      for (int k : {1, 128, 200, 1300}) {
        const bool asymmetric = (m + n) % 2 == 0;
        const Problem<false> halves(m, n, k, asymmetric);
        halves.ExpectNear(halves.Run(false), n);
        const Problem<true> bfloats(m, n, k, !asymmetric);
        bfloats.ExpectNear(bfloats.Run(false), n);
      }
    }
  }
}

TEST(W4A16CudaTest, GemmIsTheFormula) {
  const int sizes[][3] = {{1, 1, 1}, {9, 127, 128}, {63, 5, 257}, {64, 129, 384}, {65, 33, 1000}};
  for (const auto& [m, n, k] : sizes) {
    const Problem<false> halves(m, n, k, m % 2 == 0);
    halves.ExpectNear(halves.Run(true), n);
    const Problem<true> bfloats(m, n, k, m % 2 != 0);
    bfloats.ExpectNear(bfloats.Run(true), n);
  }
}

// The order of the sums does not depend on the schedule: the same bits.
TEST(W4A16CudaTest, ShuffledSchedulesAndInterleavedBlocksChangeNothing) {
  const Problem<false> problem(8, 260, 700, true);  // 3 blocks of the GEMM, 17 of the GEMV.
  for (bool gemm : {false, true}) {
    const std::vector<float> expected = problem.Run(gemm);
    EXPECT_EQ(problem.Run(gemm, {.shuffle = true, .seed = 3}), expected);
    EXPECT_EQ(problem.Run(gemm, {.shuffle = true, .seed = 4, .resident_blocks = 3}), expected);
    EXPECT_EQ(problem.Run(gemm, {.resident_blocks = 2}), expected);
  }
}

// A token's result does not depend on the batch.
TEST(W4A16CudaTest, TokensDoNotSeeEachOther) {
  const Problem<false> problem(8, 20, 1300, true);
  const std::vector<float> all = problem.Run(false);
  for (int b = 0; b < 8; ++b) {
    W4A16DeviceArgs args = problem.Args(nullptr, 20);
    std::vector<float> one(20);
    args.x += b * args.ldx;
    args.m = 1;
    args.y = one.data();
    simt::Launch({2}, {kW4GemvThreads}, [&] { W4A16GemvKernel<false>(args); });
    EXPECT_TRUE(std::equal(one.begin(), one.end(), all.begin() + b * 20)) << b;
  }
}

TEST(W4A16CudaTest, LauncherPicksTheKernelAndRefusesWhatItCannotTake) {
  for (int m : {8, 9}) {
    const Problem<true> problem(m, 20, 300, true);
    std::vector<float> y(static_cast<size_t>(m * 20));
    W4A16CudaArgs args{problem.w.data(),
                       problem.scales.data(),
                       problem.zeros.data(),
                       problem.x.data(),
                       nullptr,
                       y.data(),
                       Float16Type::kBf16,
                       m,
                       20,
                       300,
                       problem.ldx,
                       20};
    EXPECT_STREQ(LaunchW4A16(args, nullptr), nullptr);
    EXPECT_EQ(y, problem.Run(/*gemm=*/m > 8));
    std::vector<float> scale(static_cast<size_t>(m), 1.0f), want = y;
    scale[3] = 8.0f;  // A factor a token, exact
    args.x_scale = scale.data();
    EXPECT_STREQ(LaunchW4A16(args, nullptr), nullptr);
    for (size_t i = 60; i < 80; ++i) want[i] *= 8.0f;
    EXPECT_EQ(y, want);
    const auto refused = [&](const char* part, auto change) {
      W4A16CudaArgs wrong = args;
      change(wrong);
      const char* error = LaunchW4A16(wrong, nullptr);
      EXPECT_TRUE(error != nullptr && std::string(error).find(part) != std::string::npos) << part;
    };
    refused("ldx", [](W4A16CudaArgs& wrong) { wrong.ldx += 4; });
    refused("ldx", [](W4A16CudaArgs& wrong) { wrong.ldx = 256; });
    refused("ldy", [](W4A16CudaArgs& wrong) { wrong.ldy = 19; });
    refused("aligned", [](W4A16CudaArgs& wrong) { wrong.x += 1; });
    refused("negative", [](W4A16CudaArgs& wrong) { wrong.k = -1; });
    refused("split", [](W4A16CudaArgs& wrong) { wrong.m = int64_t{1} << 30; });
  }
}

TEST(W4A16CudaTest, WhatLiesBesideIsKept) {
  const Problem<false> problem(5, 20, 130, false);
  for (bool gemm : {false, true}) {
    const int ldy = 160, tokens = 70;
    DeviceBuffer<float> y(tokens * ldy, -7.0f);
    gemm ? problem.Gemm(y.data(), ldy, {}) : problem.Gemv(y.data(), ldy, {});
    problem.ExpectNear(y.ToVector(), ldy);
    for (int b = 0; b < tokens; ++b) {
      for (int i = b < 5 ? 20 : 0; i < ldy; ++i) EXPECT_EQ(y.data()[b * ldy + i], -7.0f) << b;
    }
  }
}

TEST(W4A16CudaTest, AddressesDoNotConflict) {
  const Problem<false> problem(64, 128, 256, false);
  DeviceBuffer<float> y(64 * 128, 0.0f);
  const simt::LaunchStats gemm = problem.Gemm(y.data(), 128, {.count_traffic = true});
  const Problem<false> few(8, 128, 1024, false);
  const simt::LaunchStats gemv = few.Gemv(y.data(), 128, {.count_traffic = true});
  std::printf("%s%s", simt::TrafficTable(gemm).c_str(), simt::TrafficTable(gemv).c_str());
  ASSERT_EQ(gemm.traffic.size(), 4u);
  ASSERT_EQ(gemv.traffic.size(), 3u);
  for (const simt::LaunchStats* stats : {&gemm, &gemv}) {
    for (const simt::SiteTraffic& site : stats->traffic) {
      EXPECT_EQ(site.transactions, site.ideal) << site.file << ":" << site.line;
    }
  }
}

// The barriers matter: without them a warp reads what another has not written yet.
#if defined(TERN_SIMT_TSAN)
TEST(W4A16CudaDeathTest, RaceDetectorFindsAMissingBarrier) {
  const Problem<false> problem(8, 40, 640, false);
  EXPECT_DEATH(problem.Run(true, {.skip_block_barriers = true}), "data race.*(\n.*)*W4A16Gemm");
  EXPECT_DEATH(problem.Run(false, {.skip_block_barriers = true}), "data race.*(\n.*)*W4A16Gemv");
}
#elif defined(__SANITIZE_ADDRESS__)
TEST(W4A16CudaDeathTest, ReadingBeforeAnotherThreadWaitedIsReported) {
  const Problem<false> problem(8, 40, 640, false);
  EXPECT_DEATH(problem.Run(true, {.skip_block_barriers = true}), "use-after-poison");
}
#else
TEST(W4A16CudaTest, MissingBarrierGivesWrongResults) {
  const Problem<false> problem(8, 40, 640, false);
  EXPECT_NE(problem.Run(true, {.skip_block_barriers = true}), problem.Run(true));
  Problem<false>(8, 16, 2000, false).Run(false);  // Leaves other sums in shared memory.
  EXPECT_NE(problem.Run(false, {.skip_block_barriers = true}), problem.Run(false));
}
#endif

}  // namespace
}  // namespace tern::kernels
