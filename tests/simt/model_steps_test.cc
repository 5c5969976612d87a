// The small CUDA kernels between a model's products, run in the emulator against plain loops and
// the CPU kernels, bit for bit: tables, RMSNorm, adding, scales, argmax.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/elementwise/elementwise.cuh"
#include "kernels/rms_norm/rms_norm.cuh"
#include "kernels/rms_norm/rms_norm_impl.h"
#include "kernels/table/table.cuh"
#include "tests/kernels/isa_test_util.h"
#include "tests/simt/device_buffer.h"

namespace tern::kernels {
namespace {

unsigned Blocks(int64_t n, int64_t size) { return static_cast<unsigned>((n + size - 1) / size); }

// A table of each type and its values as floats.
struct Table {
  Table(TableType type, int n, int k) : view{type, nullptr, nullptr, n, k} {
    const int64_t runs = (k + kTableRun - 1) / kTableRun;
    values = RandomFloats(int64_t{n} * k, 4);
    for (size_t i = 0; i < values.size(); ++i) {
      half.push_back(HalfFromFloat(values[i]));
      codes.push_back(static_cast<int8_t>(static_cast<int>(values[i] * 60)));
    }
    scales = RandomFloats(n * runs, 5);
    for (size_t i = 0; i < values.size(); ++i) {
      const int64_t row = static_cast<int64_t>(i) / k, column = static_cast<int64_t>(i) % k;
      if (type == TableType::kF16) values[i] = FloatFromHalf(half[i]);
      if (type == TableType::kInt8Run)
        values[i] = scales[static_cast<size_t>(row * runs + column / kTableRun)] * codes[i];
    }
    view.values = type == TableType::kF32   ? static_cast<const void*>(values.data())
                  : type == TableType::kF16 ? static_cast<const void*>(half.data())
                                            : static_cast<const void*>(codes.data());
    view.scales = scales.data();
  }
  std::vector<float> values, scales;
  std::vector<uint16_t> half;
  std::vector<int8_t> codes;
  TableView view;
};

TEST(TableCudaTest, RowsAndProducts) {
  for (TableType type : {TableType::kF32, TableType::kF16, TableType::kInt8Run}) {
    for (int k : {1, 15, 64, 300}) {
      const int n = 19, m = 3;
      const Table table(type, n, k);
      const DeviceBuffer<int32_t> ids(std::vector<int32_t>{18, 0, 7});
      DeviceBuffer<float> rows(m * k, -1.0f), y(m * n + 1, -1.0f);
      const DeviceBuffer<float> x(RandomFloats(m * k, 6));
      simt::Launch({m}, {kRowThreads},
                   [&] { GatherRowsKernel(table.view, ids.data(), rows.data()); });
      simt::Launch({Blocks(n, kTableRows), m}, {kRowThreads},
                   [&] { TableProductKernel(table.view, x.data(), y.data()); });
      EXPECT_EQ(y.data()[m * n], -1.0f) << "wrote beyond the last row";
      for (int i = 0; i < m; ++i) {
        for (int j = 0; j < k; ++j)
          EXPECT_EQ(rows.data()[i * k + j],
                    table.values[static_cast<size_t>(ids.data()[i] * k + j)]);
        for (int row = 0; row < n; ++row) {
          float lanes[kLanes] = {};
          for (int j = 0; j < k; ++j) {
            const float weight = table.values[static_cast<size_t>(row * k + j)];
            lanes[j % kLanes] = std::fma(x.data()[i * k + j], weight, lanes[j % kLanes]);
          }
          EXPECT_EQ(y.data()[i * n + row], JoinLanes(lanes)) << k;
        }
      }
    }
  }
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

int32_t Argmax(const std::vector<float>& logits, const simt::LaunchOptions& options = {}) {
  const DeviceBuffer<float> row(logits);
  DeviceBuffer<int32_t> id(1, -7);
  const int n = static_cast<int>(logits.size());
  simt::Launch(
      {1}, {kRowThreads}, [&] { ArgmaxKernel(row.data(), n, n, id.data()); }, options);
  return id.data()[0];
}

TEST(ArgmaxCudaTest, TheLowestOfTheHighest) {
  for (int n : {1, 31, 256, 257, 1000}) {
    std::vector<float> logits = RandomFloats(n, static_cast<uint32_t>(n));
    const auto best = std::max_element(logits.begin(), logits.end());
    EXPECT_EQ(Argmax(logits), best - logits.begin());
    EXPECT_EQ(Argmax(logits, {.shuffle = true}), best - logits.begin());
    logits.back() = logits.front() = 99.0f;  // A tie across threads and warps
    EXPECT_EQ(Argmax(logits), 0);
  }
  EXPECT_EQ(Argmax(std::vector<float>(700, 0.5f)), 0);
  std::vector<float> lows(300, -INFINITY);
  EXPECT_EQ(Argmax(lows), -1);
  lows[299] = -3e38f;
  EXPECT_EQ(Argmax(lows), 299);
  for (float bad : {std::nanf(""), HUGE_VALF}) {
    for (size_t at : {0, 40, 299}) {
      auto logits = RandomFloats(300, 1);
      logits[at] = bad;
      EXPECT_EQ(Argmax(logits), -1) << bad << " at " << at;
    }
  }
}

}  // namespace
}  // namespace tern::kernels
