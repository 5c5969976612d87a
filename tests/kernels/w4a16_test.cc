// The 4-bit product on the CPU: the layout holds what it says and loses nothing, the oracle is
// right to a derived bound, and every instruction set and cut gives the oracle's bits.
#include "kernels/w4a16/w4a16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/common/half.h"
#include "tests/kernels/isa_test_util.h"

namespace tern::kernels {
namespace {

struct Problem {
  Problem(int64_t m, int64_t n, int64_t k, bool asymmetric, Float16Type type)
      : m(m), n(n), k(k), ldx(k + 3), asymmetric(asymmetric), type(type) {
    std::mt19937 random(static_cast<uint32_t>(m * 1009 + n * 31 + k));
    codes.resize(static_cast<size_t>(n * k));
    for (uint8_t& v : codes) v = static_cast<uint8_t>(random() % 16);
    w.resize(static_cast<size_t>(n * W4RowBytes(k)));
    for (int64_t i = 0; i < n; ++i)
      PackW4Row(codes.data() + i * k, k, w.data() + i * W4RowBytes(k));
    for (int64_t i = 0; i < W4Groups(k) * n; ++i) {
      zeros.push_back(static_cast<uint8_t>(random() % 16));
      // Positive, about 2^-7 .. 2^-4 in fp16 and 2^-4 .. 2^-1 in bf16.
      const uint32_t bits = random() % 0x0C00;
      scales.push_back(
          static_cast<uint16_t>(type == Float16Type::kF16 ? 0x2000 + bits : 0x3D80 + bits % 0x180));
    }
    x = RandomFloats(m * ldx, 7);
  }

  W4A16Args Args(float* y) const {
    return {w.data(),
            scales.data(),
            asymmetric ? zeros.data() : nullptr,
            type,
            x.data(),
            y,
            m,
            n,
            k,
            ldx,
            n};
  }
  double Weight(int64_t row, int64_t at) const {
    const auto g = static_cast<size_t>(at / kW4Group * n + row);
    const int zero = asymmetric ? zeros[g] : 8;
    const double scale =
        type == Float16Type::kF16 ? FloatFromHalf(scales[g]) : FloatFromBfloat(scales[g]);
    return (codes[static_cast<size_t>(row * k + at)] - zero) * scale;
  }
  std::vector<float> Oracle() const {
    std::vector<float> y(static_cast<size_t>(m * n), -1.0f);
    W4A16GemvRef(Args(y.data()));
    return y;
  }

  int64_t m, n, k, ldx;
  bool asymmetric;
  Float16Type type;
  std::vector<uint8_t> codes, w, zeros;
  std::vector<uint16_t> scales;
  std::vector<float> x;
};

// Nibbles worked out by hand from the picture in w4a16.h.
TEST(W4A16Test, LayoutIsThePicture) {
  std::vector<uint8_t> codes(128, 0), packed(64);
  const auto nibble = [&](int k) {
    std::fill(codes.begin(), codes.end(), uint8_t{0});
    codes[static_cast<size_t>(k)] = 15;
    PackW4Row(codes.data(), 128, packed.data());
    int found = -1;
    for (int i = 0; i < 128; ++i) {
      const int value = packed[static_cast<size_t>(i / 2)] >> (4 * (i % 2)) & 15;
      EXPECT_TRUE(value == 0 || (value == 15 && found < 0));
      if (value == 15) found = i;
    }
    return found;
  };
  EXPECT_EQ(nibble(0), 0);
  EXPECT_EQ(nibble(1), 4);   // e 1: bits 16-19.
  EXPECT_EQ(nibble(2), 1);   // e 2: bits 4-7.
  EXPECT_EQ(nibble(7), 7);   // e 7: bits 28-31.
  EXPECT_EQ(nibble(8), 32);  // t 1: word 4.
  EXPECT_EQ(nibble(32), 8);  // r 1: word 1.
  EXPECT_EQ(nibble(127), 8 * 15 + 7);
}

TEST(W4A16Test, PackingLosesNothing) {
  for (int64_t k : {0, 1, 7, 127, 128, 129, 300, 2560}) {
    const Problem problem(0, 3, k, false, Float16Type::kF16);
    for (int64_t row = 0; row < 3; ++row) {
      std::vector<uint8_t> codes(static_cast<size_t>(k));
      UnpackW4Row(problem.w.data() + row * W4RowBytes(k), k, codes.data());
      EXPECT_TRUE(std::equal(codes.begin(), codes.end(), problem.codes.begin() + row * k)) << k;
    }
  }
}

// Goal: the shuffle of words is the packing of their codes; bits beyond the row count for nothing.
TEST(W4A16Test, WordsOfEightAreTheSameCodes) {
  for (int64_t k : {0, 1, 7, 8, 60, 127, 128, 129, 300, 2560}) {
    const Problem problem(0, 3, k, false, Float16Type::kF16);
    for (int64_t row = 0; row < 3; ++row) {
      const auto packed_bytes = static_cast<size_t>(W4RowBytes(k));
      std::vector<uint8_t> words(static_cast<size_t>((k + 7) / 8 * 4), 0xAB), packed(packed_bytes);
      for (int64_t i = 0; i < k; ++i) {
        uint8_t& byte = words[static_cast<size_t>(i / 2)];
        const int code = problem.codes[static_cast<size_t>(row * k + i)];
        byte = static_cast<uint8_t>(i % 2 == 0 ? (byte & 0xF0) | code : (byte & 15) | code << 4);
      }
      PackW4Words(words.data(), k, packed.data());
      EXPECT_TRUE(
          std::equal(packed.begin(), packed.end(), problem.w.begin() + row * W4RowBytes(k)))
          << k;
    }
  }
}

TEST(W4A16Test, HalvesDecodeExactly) {
  EXPECT_EQ(FloatFromHalf(0x3C00), 1.0f);
  EXPECT_EQ(FloatFromHalf(0xC000), -2.0f);
  EXPECT_EQ(FloatFromHalf(0x7BFF), 65504.0f);
  EXPECT_EQ(FloatFromHalf(0x0001), 0x1p-24f);
  EXPECT_EQ(FloatFromHalf(0x83FF), -0x1.ff8p-15f);
  EXPECT_TRUE(std::signbit(FloatFromHalf(0x8000)));
  EXPECT_EQ(FloatFromHalf(0xFC00), -INFINITY);
  EXPECT_TRUE(std::isnan(FloatFromHalf(0x7E01)));
  EXPECT_EQ(FloatFromBfloat(0x3FC0), 1.5f);
}

// Against fp64. Each lane's total passes at most 8 fma a group and one a group, then four additions
// join: an element's term is rounded at most 8 + groups + 4 times, each by at most 2^-24 of what it
// is part of, which is at most sum |x w|. Twice that covers the higher orders.
TEST(W4A16Test, OracleIsTheFormula) {
  for (bool asymmetric : {false, true}) {
    for (Float16Type type : {Float16Type::kF16, Float16Type::kBf16}) {
      const Problem problem(3, 9, 700, asymmetric, type);
      const std::vector<float> y = problem.Oracle();
      for (int64_t m = 0; m < 3; ++m) {
        for (int64_t n = 0; n < 9; ++n) {
          double sum = 0.0, size = 0.0;
          for (int64_t at = 0; at < 700; ++at) {
            const double term =
                problem.x[static_cast<size_t>(m * problem.ldx + at)] * problem.Weight(n, at);
            sum += term;
            size += std::fabs(term);
          }
          const double tolerance = 2.0 * (12 + W4Groups(700)) * 0x1p-24 * size;
          EXPECT_NEAR(y[static_cast<size_t>(m * 9 + n)], sum, tolerance);
        }
      }
    }
  }
}

TEST(W4A16Test, EveryInstructionSetAndCutGivesTheOraclesBits) {
  const ParallelFor cuts[] = {SerialFor, UnevenFor, OneByOneFor};
  for (int64_t m : {0, 1, 2, 3, 5, 8, 11}) {
    for (int64_t n : {0, 1, 3, 33}) {
      for (int64_t k : {0, 1, 127, 128, 130, 1280}) {
        const bool asymmetric = (m + n + k) % 2 == 0;
        const Float16Type type = k % 3 == 0 ? Float16Type::kF16 : Float16Type::kBf16;
        const Problem problem(m, n, k, asymmetric, type);
        const std::vector<float> expected = problem.Oracle();
        ForEachIsa([&](Isa isa) {
          for (const ParallelFor& cut : cuts) {
            std::vector<float> y(static_cast<size_t>(m * n), -1.0f);
            W4A16Gemv(problem.Args(y.data()), cut);
            const size_t bytes = y.size() * sizeof(float);
            EXPECT_TRUE(bytes == 0 || std::memcmp(y.data(), expected.data(), bytes) == 0)
                << ToString(isa) << " m " << m << " n " << n << " k " << k;
          }
        });
      }
    }
  }
}

// A token's result does not depend on the others of the call.
TEST(W4A16Test, TokensDoNotSeeEachOther) {
  const Problem problem(8, 20, 384, true, Float16Type::kF16);
  std::vector<float> all(160), one(20);
  W4A16Gemv(problem.Args(all.data()), SerialFor);
  for (int64_t m = 0; m < 8; ++m) {
    W4A16Args args = problem.Args(one.data());
    args.m = 1;
    args.x += m * args.ldx;
    W4A16Gemv(args, SerialFor);
    EXPECT_TRUE(std::equal(one.begin(), one.end(), all.begin() + m * 20)) << m;
  }
}

}  // namespace
}  // namespace tern::kernels
