// The small CUDA kernels between a model's products, run in the emulator against plain loops and
// the CPU kernels, bit for bit: tables, RMSNorm, adding, scales, rounding.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/elementwise/elementwise.cu"  // The launchers' host code is the emulator's, too.
#include "kernels/fp8/fp8.h"
#include "kernels/rms_norm/rms_norm.cuh"
#include "kernels/rms_norm/rms_norm_impl.h"
#include "kernels/table/table.cu"
#include "tests/kernels/isa_test_util.h"
#include "tests/simt/device_buffer.h"

namespace tern::kernels {
namespace {

unsigned Blocks(int64_t n, int64_t size) { return static_cast<unsigned>((n + size - 1) / size); }

// A table of a type and its values as floats, scaled by blocks where it is of codes.
struct Table {
  Table(TableType type, int n, int k, int block_n, int block_k, bool shifted = false)
      : view{type, nullptr, nullptr, nullptr, n, k, block_n, block_k} {
    const int64_t blocks = (k + block_k - 1) / block_k;
    values = RandomFloats(int64_t{n} * k, 4);
    scales = RandomFloats((n + block_n - 1) / block_n * blocks, 5);
    shifts = RandomFloats(static_cast<int64_t>(scales.size()), 6);
    for (size_t i = 0; i < values.size(); ++i) {
      const bool bf16 = type == TableType::kBf16;
      half.push_back(bf16 ? BfloatFromFloat(values[i]) : HalfFromFloat(values[i]));
      codes.push_back(static_cast<uint8_t>(static_cast<int8_t>(values[i] * 60)));
      const bool nan = type == TableType::kE4m3 && (codes[i] & 127) == 127;
      if (nan) codes[i] = 126;  // No file may hold one
      const int64_t row = static_cast<int64_t>(i) / k, column = static_cast<int64_t>(i) % k;
      const auto at = static_cast<size_t>(row / block_n * blocks + column / block_k);
      if (type == TableType::kF16) values[i] = FloatFromHalf(half[i]);
      if (bf16) values[i] = FloatFromBfloat(half[i]);
      if (type == TableType::kInt8) {
        values[i] = scales[at] * static_cast<float>(static_cast<int8_t>(codes[i]));
        if (shifted) values[i] += shifts[at];
      }
      if (type == TableType::kE4m3) values[i] = scales[at] * E4M3ToFp32Ref(codes[i]);
    }
    view.values = type == TableType::kF32 ? static_cast<const void*>(values.data())
                  : view.IsCodes()        ? static_cast<const void*>(codes.data())
                                          : static_cast<const void*>(half.data());
    view.scales = scales.data();
    view.shifts = shifted ? shifts.data() : nullptr;
  }
  std::vector<float> values, scales, shifts;
  std::vector<uint16_t> half;
  std::vector<uint8_t> codes;
  TableView view;
};

void ExpectRowsAndProducts(const Table& table) {
  const int n = table.view.n, k = table.view.k, m = 3;
  const DeviceBuffer<int32_t> ids(std::vector<int32_t>{n - 1, 0, n / 2});
  DeviceBuffer<float> rows(m * k, -1.0f), y(m * n + 1, -1.0f);
  DeviceBuffer<uint16_t> expanded(n * k, 0xFFFF);
  const DeviceBuffer<float> x(RandomFloats(m * k, 6));
  ASSERT_EQ(LaunchGatherRows(table.view, ids.data(), m, rows.data(), nullptr), nullptr);
  ASSERT_EQ(LaunchTableProduct(table.view, x.data(), m, y.data(), nullptr), nullptr);
  ASSERT_EQ(LaunchExpandTable(table.view, expanded.data(), nullptr), nullptr);
  EXPECT_EQ(y.data()[m * n], -1.0f) << "wrote beyond the last row";
  for (int i = 0; i < n * k; ++i)
    ASSERT_EQ(expanded.data()[i], HalfFromFloat(table.values[static_cast<size_t>(i)])) << i;
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < k; ++j)
      ASSERT_EQ(rows.data()[i * k + j], table.values[static_cast<size_t>(ids.data()[i] * k + j)]);
    for (int row = 0; row < n; ++row) {
      float lanes[kLanes] = {};
      for (int j = 0; j < k; ++j) {
        const float weight = table.values[static_cast<size_t>(row * k + j)];
        lanes[j % kLanes] = std::fma(x.data()[i * k + j], weight, lanes[j % kLanes]);
      }
      ASSERT_EQ(y.data()[i * n + row], JoinLanes(lanes)) << k;
    }
  }
}

TEST(TableCudaTest, RowsAndProducts) {
  for (int k : {1, 15, 64, 300}) {
    SCOPED_TRACE(k);
    for (TableType type : {TableType::kF32, TableType::kF16, TableType::kBf16})
      ExpectRowsAndProducts(Table(type, 19, k, 1, k));
    for (TableType type : {TableType::kInt8, TableType::kE4m3}) {
      for (int block_k : {16, 32, 128, 300}) {
        ExpectRowsAndProducts(Table(type, 19, k, 1, block_k));
        ExpectRowsAndProducts(Table(type, 19, k, 4, block_k));
      }
    }
    ExpectRowsAndProducts(Table(TableType::kInt8, 19, k, 1, 32, /*shifted=*/true));
  }
}

// The order of the sum would be another one.
TEST(TableCudaTest, RefusesScalesOfOddColumns) {
  const Table table(TableType::kInt8, 2, 64, 1, 24);
  float x[64] = {}, y[2];
  EXPECT_STREQ(LaunchTableProduct(table.view, x, 1, y, nullptr),
               "a table's scales must be of a multiple of 16 columns");
}

TEST(RoundRowsCudaTest, RoundsToNearestAndPads) {
  const int m = 3, k = 37, ldo = 64;
  auto values = RandomFloats(m * k, 8, 100.0f);
  values[0] = 6e4f;  // Near the end of fp16
  values[1] = 1.0f + 0x1p-11f;
  values[2] = 1.0f + 0x1p-8f;
  const DeviceBuffer<float> x(values);
  for (bool bf16 : {false, true}) {
    DeviceBuffer<uint16_t> out(m * ldo, 0xFFFF);
    DeviceBuffer<float> scale(m, -1.0f);
    ASSERT_EQ(LaunchRoundRows({x.data(), out.data(), scale.data(), m, k, ldo, bf16}, nullptr),
              nullptr);
    EXPECT_EQ(scale.ToVector(), std::vector<float>(m, bf16 ? -1.0f : 1.0f));
    for (int i = 0; i < m * ldo; ++i) {
      const float value = i % ldo < k ? values[static_cast<size_t>(i / ldo * k + i % ldo)] : 0.0f;
      EXPECT_EQ(out.data()[i], bf16 ? BfloatFromFloat(value) : HalfFromFloat(value)) << i;
    }
  }
}

// Of each row the largest element alone decides; what is not finite stays so.
TEST(RoundRowsCudaTest, BringsRowsIntoTheRangeOfFp16) {
  const int k = 300;
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> largest = {65504.0f, 65505.0f, -131072.0f, 1e9f, -3e38f, infinity, 1.0f};
  const std::vector<float> want = {1.0f, 2.0f, 8.0f, 0x1p15f, 0x1p113f, 1.0f, 1.0f};
  const int m = static_cast<int>(largest.size());
  auto values = RandomFloats(m * k, 8, 100.0f);
  for (int i = 0; i < m; ++i)
    values[static_cast<size_t>(i * k + 270)] = largest[static_cast<size_t>(i)];
  const DeviceBuffer<float> x(values);
  DeviceBuffer<float> scale(m, -1.0f);
  DeviceBuffer<uint16_t> out(m * k, 0xFFFF);
  ASSERT_EQ(LaunchRoundRows({x.data(), out.data(), scale.data(), m, k, k, false}, nullptr),
            nullptr);
  EXPECT_EQ(scale.ToVector(), want);
  for (int i = 0; i < m * k; ++i) {
    const float value = values[static_cast<size_t>(i)] / want[static_cast<size_t>(i / k)];
    ASSERT_EQ(out.data()[i], HalfFromFloat(value)) << i;
    ASSERT_TRUE(i / k == 5 || std::fabs(FloatFromHalf(out.data()[i])) < infinity) << i;
  }
}

TEST(ScaleRowsCudaTest, ScalesRowsAndColumns) {
  const int m = 3, n = 300;
  const auto before = RandomFloats(m * n, 1);
  const DeviceBuffer<float> row(std::vector<float>{0.3f, 1.0f, 7.0f}), column(RandomFloats(n, 2));
  for (const int block_n : {0, 1, 100, n}) {  // 0: no columns
    DeviceBuffer<float> y(before);
    const float* columns = block_n == 0 ? nullptr : column.data();
    ASSERT_EQ(LaunchScaleRows({y.data(), row.data(), columns, m, n, block_n}, nullptr), nullptr);
    for (int i = 0; i < m * n; ++i) {
      const float scaled = before[static_cast<size_t>(i)] * row.data()[i / n];
      ASSERT_EQ(y.data()[i], block_n == 0 ? scaled : scaled * column.data()[i % n / block_n]) << i;
    }
  }
}

TEST(AddBiasCudaTest, AddsToEveryRow) {
  const int m = 3, n = 100;
  const auto before = RandomFloats(m * n, 1);
  DeviceBuffer<float> x(before);
  const DeviceBuffer<float> bias(RandomFloats(n, 2));
  ASSERT_EQ(LaunchAddBias(x.data(), bias.data(), m, n, nullptr), nullptr);
  for (int i = 0; i < m * n; ++i)
    EXPECT_EQ(x.data()[i], before[static_cast<size_t>(i)] + bias.data()[i % n]);
}

TEST(RmsNormCudaTest, EqualsTheOracle) {
  for (int d : {1, 16, 40, 300}) {
    const int m = 3;
    const DeviceBuffer<float> x(RandomFloats(m * d, 1, 3.0f)), g(RandomFloats(d, 2));
    std::vector<float> want(static_cast<size_t>(m * d)), inverse(m);
    RmsNormForwardRef(x.data(), g.data(), 0, m, d, 1e-6f, want.data(), inverse.data());
    for (bool shuffle : {false, true}) {
      DeviceBuffer<float> y(m * d, -1.0f);
      simt::Launch({m}, {kRowThreads},
                   [&] { RmsNormKernel(x.data(), g.data(), d, 1e-6f, y.data()); },
                   {.shuffle = shuffle});
      EXPECT_EQ(y.ToVector(), want) << d;
    }
  }
}

TEST(ElementwiseCudaTest, AddAndScale) {
  for (int64_t count : {1, 256, 300}) {
    const auto a = RandomFloats(count, 1);
    DeviceBuffer<float> x(a), scale(count, -1.0f);
    const DeviceBuffer<float> y(RandomFloats(count, 2));
    simt::Launch({Blocks(count, kRowThreads)}, {kRowThreads},
                 [&] { AddKernel(x.data(), y.data(), count); });
    simt::Launch({Blocks(count, kRowThreads)}, {kRowThreads},
                 [&] { OutScaleKernel(y.data(), 0.3f, count, scale.data()); });
    for (int64_t i = 0; i < count; ++i) {
      EXPECT_EQ(x.data()[i], a[static_cast<size_t>(i)] + y.data()[i]);
      EXPECT_EQ(scale.data()[i], 0.3f * (y.data()[i] / 127.0f));
    }
  }
}

}  // namespace
}  // namespace tern::kernels
