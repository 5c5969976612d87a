// One file with a dataset of each kind, and what it must give back: shared by the tests of src/h5.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "h5/h5.h"

namespace tern::h5 {

struct SampleValues {
  std::vector<float> weight = std::vector<float>(37 * 5);
  std::vector<uint16_t> tokens = std::vector<uint16_t>(1001);
  int64_t step = 41;
  std::string note = "naïve ☃";

  SampleValues() {
    for (size_t i = 0; i < weight.size(); ++i) weight[i] = static_cast<float>(i) * 0.25f - 3;
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<uint16_t>(i * 77);
  }
};

inline void WriteSampleFile(const std::string& path) {
  const SampleValues sample;
  File file = File::Create(path);
  WriteOptions small_chunks;
  small_chunks.chunk_bytes = 128;
  file.Write("/model/layers.0.weight", Type::kF32, {37, 5}, sample.weight.data(), small_chunks);
  file.CreateAppendable("/train/tokens", Type::kU16, 100);
  file.Append("/train/tokens", Type::kU16, sample.tokens.data(), 1);
  file.Append("/train/tokens", Type::kU16, sample.tokens.data() + 1, 1000);
  file.Write("/step", Type::kI64, {}, &sample.step);
  file.SetAttribute("/", "note", sample.note);
  file.SetAttribute("/train", "count", int64_t{-7});
  file.Close();
}

// Reads everything. Throws what the reader throws; a value that differs is a test failure.
inline void ReadSampleFile(const std::string& path) {
  const SampleValues want;
  const File file = File::OpenForReading(path);
  SampleValues got;
  got.weight.assign(got.weight.size(), 0);
  file.Read("/model/layers.0.weight", Type::kF32, got.weight.data(), 37 * 5 * 4);
  EXPECT_EQ(got.weight, want.weight);
  const DatasetInfo info = file.Info("/train/tokens");
  EXPECT_EQ(info.shape, std::vector<int64_t>{1001});
  got.tokens.assign(static_cast<size_t>(info.shape.at(0)), 0);
  file.Read("/train/tokens", Type::kU16, got.tokens.data(), info.shape.at(0) * 2);
  EXPECT_EQ(got.tokens, want.tokens);
  file.Read("/step", Type::kI64, &got.step, 8);
  EXPECT_EQ(got.step, want.step);
  EXPECT_EQ(file.StringAttribute("/", "note"), want.note);
  EXPECT_EQ(file.IntAttribute("/train", "count"), -7);
  EXPECT_EQ(file.ListDatasets(),
            (std::vector<std::string>{"/model/layers.0.weight", "/step", "/train/tokens"}));
}

}  // namespace tern::h5
