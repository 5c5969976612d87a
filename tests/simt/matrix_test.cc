// The tensor-core steps of the emulator against the fragment layouts of the PTX ISA manual, written
// here element by element as the manual's sections on fragments give them (kernels/simt/mma.cc
// works by registers): a lane's element i of a matrix, as a row and a column.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/simt/intrin_tensor.h"

namespace tern::simt {
namespace {

struct Place {
  int row, column;
};

// PTX ISA, "Matrix Fragments for mma.m16n8k32": .s8/.u8 A, element i of 16.
Place BytesOfA(int lane, int i) {
  const int group = lane >> 2, thread_in_group = lane % 4;
  const bool upper = (0 <= i && i < 4) || (8 <= i && i < 12);
  return {upper ? group : group + 8,
          i < 8 ? thread_in_group * 4 + (i & 3) : thread_in_group * 4 + (i & 3) + 16};
}

// The same for B, element i of 8; the row is k.
Place BytesOfB(int lane, int i) {
  const int thread_in_group = lane % 4;
  return {i < 4 ? thread_in_group * 4 + (i & 3) : thread_in_group * 4 + (i & 3) + 16, lane >> 2};
}

// "Matrix Fragments for mma.m16n8k16 with floating point type": A, element i of 8.
Place HalvesOfA(int lane, int i) {
  const int group = lane >> 2, thread_in_group = lane % 4;
  const bool upper = (0 <= i && i < 2) || (4 <= i && i < 6);
  return {upper ? group : group + 8,
          i < 4 ? thread_in_group * 2 + (i & 1) : thread_in_group * 2 + (i & 1) + 8};
}

Place HalvesOfB(int lane, int i) {
  const int thread_in_group = lane % 4;
  return {i < 2 ? thread_in_group * 2 + (i & 1) : thread_in_group * 2 + (i & 1) + 8, lane >> 2};
}

// Both shapes: C, element i of 4.
Place OfC(int lane, int i) { return {i < 2 ? lane >> 2 : (lane >> 2) + 8, lane % 4 * 2 + (i & 1)}; }

// Worked out by hand from the manual's figures.
TEST(MatrixTest, TheTableAgreesWithTheFigures) {
  const auto expect = [](Place place, int row, int column) {
    EXPECT_EQ(place.row, row);
    EXPECT_EQ(place.column, column);
  };
  expect(BytesOfA(0, 0), 0, 0);
  expect(BytesOfA(31, 15), 15, 31);
  expect(BytesOfA(13, 5), 11, 5);
  expect(BytesOfA(13, 8), 3, 20);
  expect(BytesOfB(6, 7), 27, 1);
  expect(HalvesOfA(31, 3), 15, 7);
  expect(HalvesOfA(5, 4), 1, 10);
  expect(HalvesOfB(31, 3), 15, 7);
  expect(OfC(7, 2), 9, 6);
}

template <int kElements, class T>
void Pack(const std::vector<T>& matrix, int columns, Place (*place)(int, int),
          uint32_t (*fragment)[kElements * static_cast<int>(sizeof(T)) / 4]) {
  for (int lane = 0; lane < 32; ++lane) {
    T elements[kElements];
    for (int i = 0; i < kElements; ++i) {
      const Place at = place(lane, i);
      elements[i] = matrix[static_cast<size_t>(at.row * columns + at.column)];
    }
    std::memcpy(fragment[lane], elements, sizeof(elements));
  }
}

template <class Step>
void ExpectInt8Product(int low, int high, const Step& step) {
  std::mt19937 random(5);
  std::vector<uint8_t> a(16 * 32), b(32 * 8);
  for (uint8_t& v : a) v = static_cast<uint8_t>(random());
  for (uint8_t& v : b) v = static_cast<uint8_t>(random());
  uint32_t a_parts[32][4], b_parts[32][2];
  int c_parts[32][4];
  Pack<16>(a, 32, BytesOfA, a_parts);
  Pack<8>(b, 8, BytesOfB, b_parts);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) c_parts[lane][i] = 1000 * lane + i;
  }
  Launch({1}, {32},
         [&] { step(c_parts[threadIdx.x], a_parts[threadIdx.x], b_parts[threadIdx.x]); });
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Place at = OfC(lane, i);
      int sum = 1000 * lane + i;
      for (int k = 0; k < 32; ++k) {
        const int left = a[static_cast<size_t>(at.row * 32 + k)];
        const int right = static_cast<int8_t>(b[static_cast<size_t>(k * 8 + at.column)]);
        sum += (left > high ? left - (high - low + 1) : left) * right;
      }
      EXPECT_EQ(c_parts[lane][i], sum) << "lane " << lane << " element " << i;
    }
  }
}

TEST(MatrixTest, BytesMultiplyAsTheManualSays) {
  ExpectInt8Product(-128, 127, [](auto& c, auto& a, auto& b) { MultiplyS8(c, a, b); });
  ExpectInt8Product(0, 255, [](auto& c, auto& a, auto& b) { MultiplyU8S8(c, a, b); });
}

// Small multiples of 1/8 in both formats: every product and sum is exact in fp32.
template <class Encode, class Step>
void ExpectFloatProduct(const Encode& encode, const Step& step) {
  std::mt19937 random(6);
  std::vector<uint16_t> a(16 * 16), b(16 * 8);
  std::vector<float> a_values, b_values;
  const auto fill = [&](std::vector<uint16_t>& to, std::vector<float>& values) {
    for (uint16_t& v : to) {
      values.push_back(static_cast<float>(static_cast<int>(random() % 63) - 31) / 8.0f);
      v = encode(values.back());
    }
  };
  fill(a, a_values);
  fill(b, b_values);
  uint32_t a_parts[32][4], b_parts[32][2];
  float c_parts[32][4];
  Pack<8>(a, 16, HalvesOfA, a_parts);
  Pack<4>(b, 8, HalvesOfB, b_parts);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) c_parts[lane][i] = static_cast<float>(lane) + 0.25f;
  }
  Launch({1}, {32},
         [&] { step(c_parts[threadIdx.x], a_parts[threadIdx.x], b_parts[threadIdx.x]); });
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Place at = OfC(lane, i);
      float sum = static_cast<float>(lane) + 0.25f;
      for (int k = 0; k < 16; ++k) {
        sum += a_values[static_cast<size_t>(at.row * 16 + k)] *
               b_values[static_cast<size_t>(k * 8 + at.column)];
      }
      EXPECT_EQ(c_parts[lane][i], sum) << "lane " << lane << " element " << i;
    }
  }
}

uint16_t ToBf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>(bits >> 16);
}

// Exact for normal values of fp16.
uint16_t ToF16(float value) {
  int exponent = 0;
  const float fraction = std::frexp(std::fabs(value), &exponent);  // In [0.5, 1).
  if (fraction == 0.0f) return 0;
  const int bits = (exponent + 14) << 10 | (static_cast<int>(fraction * 2048.0f) & 1023);
  return static_cast<uint16_t>(bits | (value < 0.0f ? 0x8000 : 0));
}

TEST(MatrixTest, FloatsMultiplyAsTheManualSays) {
  ExpectFloatProduct(ToF16, [](auto& c, auto& a, auto& b) { MultiplyF16(c, a, b); });
  ExpectFloatProduct(ToBf16, [](auto& c, auto& a, auto& b) { MultiplyBf16(c, a, b); });
}

// a(0, 0) times one, for each kind of fp16: smallest subnormal, largest, -0, infinity, NaN.
TEST(MatrixTest, DecodesSpecialHalves) {
  const auto decode = [](uint16_t bits) {
    float result = 0.0f;
    Launch({1}, {32}, [&] {
      const uint32_t a[4] = {threadIdx.x == 0 ? bits : 0u, 0, 0, 0};
      const uint32_t b[2] = {threadIdx.x == 0 ? 0x3C00u : 0u, 0};
      float c[4] = {};
      MultiplyF16(c, a, b);
      if (threadIdx.x == 0) result = c[0];
    });
    return result;
  };
  EXPECT_EQ(decode(0x0001), 0x1p-24f);
  EXPECT_EQ(decode(0x83FF), -0x1.ff8p-15f);
  EXPECT_EQ(decode(0x0400), 0x1p-14f);
  EXPECT_EQ(decode(0x7BFF), 65504.0f);
  EXPECT_EQ(decode(0xFC00), -INFINITY);
  EXPECT_TRUE(std::isnan(decode(0x7E00)));
}

// "ldmatrix": element (row, column) of a stored matrix is in the lane 4 row + column / 2, and with
// .trans in the lane 4 column + row / 2; the odd one of a pair is the upper half.
template <int kMatrices, bool kTransposed>
void ExpectMatrices(const Dim3& block = {32}) {
  alignas(16) uint16_t stored[8 * kMatrices][24];  // 16 elements between rows that no one may read.
  for (int row = 0; row < 8 * kMatrices; ++row) {
    for (int column = 0; column < 24; ++column) {
      stored[row][column] = static_cast<uint16_t>(column < 8 ? 100 * row + column : 9999);
    }
  }
  uint32_t parts[32][kMatrices] = {};
  Launch({1}, block, [&] {
    const unsigned lane = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    const void* ignored = reinterpret_cast<const void*>(uintptr_t{3});
    LoadMatrix<kMatrices, kTransposed>(parts[lane], lane < 8 * kMatrices ? stored[lane] : ignored);
  });
  for (int matrix = 0; matrix < kMatrices; ++matrix) {
    for (int row = 0; row < 8; ++row) {
      for (int column = 0; column < 8; ++column) {
        const int major = kTransposed ? column : row, minor = kTransposed ? row : column;
        const uint32_t word = parts[4 * major + minor / 2][matrix];
        EXPECT_EQ(minor % 2 == 0 ? word & 0xFFFF : word >> 16,
                  static_cast<uint32_t>(100 * (8 * matrix + row) + column));
      }
    }
  }
}

TEST(MatrixTest, MatricesLoadAsTheManualSays) {
  ExpectMatrices<1, false>();
  ExpectMatrices<2, false>();
  ExpectMatrices<4, false>();
  ExpectMatrices<1, true>();
  ExpectMatrices<2, true>();
  ExpectMatrices<4, true>();
  ExpectMatrices<1, false>({8, 4});  // Lanes go on along y
  ExpectMatrices<2, true>({4, 2, 4});
}

}  // namespace
}  // namespace tern::simt
