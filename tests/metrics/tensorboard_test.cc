// Event files byte for byte against the format's own rules, read by an independent little decoder
// here; the checksums against known answers (RFC 3720, B.4). tests/peers/check_tensorboard.py reads
// such files with TensorBoard itself.
#include "metrics/tensorboard.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "tests/testing/temp_folder.h"

namespace tern {
namespace {

using testing::TempFolder;

TEST(Crc32cTest, KnownAnswers) {
  EXPECT_EQ(Crc32c(""), 0u);
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  std::string rising;
  for (char c = 0; c < 32; ++c) rising.push_back(c);
  EXPECT_EQ(Crc32c(rising), 0x46DD794Eu);
  // The mask is undone by subtracting the constant and rotating back.
  const uint32_t rotated = MaskedCrc32c("123456789") - 0xA282EAD8u;
  EXPECT_EQ(rotated >> 17 | rotated << 15, 0xE3069283u);
}

template <class T>
T Load(std::string_view bytes, size_t at) {
  T value{};
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

// The events of a file, each record's length and checksums verified.
std::vector<std::string> ReadRecords(const std::string& path) {
  std::vector<std::string> events;
  const std::string bytes = ReadFile(path);
  for (size_t at = 0; at < bytes.size();) {
    const auto length = Load<uint64_t>(bytes, at);
    EXPECT_EQ(Load<uint32_t>(bytes, at + 8), MaskedCrc32c(std::string_view(bytes).substr(at, 8)));
    events.push_back(bytes.substr(at + 12, length));
    EXPECT_EQ(events.back().size(), length);
    EXPECT_EQ(Load<uint32_t>(bytes, at + 12 + length), MaskedCrc32c(events.back()));
    at += 16 + length;
  }
  return events;
}

uint64_t ReadVarint(std::string_view bytes, size_t* at) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<uint8_t>(bytes.at((*at)++));
    value |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return value;
  }
}

// Fields of a protobuf message: number to the raw values in order (varints as 8 bytes).
std::multimap<uint32_t, std::string> ReadFields(std::string_view bytes) {
  std::multimap<uint32_t, std::string> fields;
  for (size_t at = 0; at < bytes.size();) {
    const uint64_t tag = ReadVarint(bytes, &at);
    size_t size = 0;
    std::string value;
    switch (tag & 7) {
      case 0: {
        const uint64_t number = ReadVarint(bytes, &at);
        value.assign(reinterpret_cast<const char*>(&number), sizeof number);
        break;
      }
      case 1:
        size = 8;
        break;
      case 2:
        size = ReadVarint(bytes, &at);
        break;
      case 5:
        size = 4;
        break;
      default:
        ADD_FAILURE() << "wire type " << (tag & 7);
    }
    if ((tag & 7) != 0) {
      value = bytes.substr(at, size);
      at += size;
    }
    fields.emplace(static_cast<uint32_t>(tag >> 3), value);
  }
  return fields;
}

WallClock FixedClock(double seconds) {
  return [seconds] { return seconds; };
}

TEST(TensorBoardTest, NewFileHoldsVersionAndScalars) {
  const TempFolder folder;
  TensorBoardWriter writer(folder.path(), 0, FixedClock(1234.5));
  writer.Add(300, {{"train/loss", 3.25}, {"train/learning_rate", 1e-3}});
  const auto events = ReadRecords(writer.path());
  ASSERT_EQ(events.size(), 2u);
  const auto version = ReadFields(events[0]);
  EXPECT_EQ(Load<double>(version.find(1)->second, 0), 1234.5);
  EXPECT_EQ(version.find(3)->second, "brain.Event:2");
  const auto event = ReadFields(events[1]);
  EXPECT_EQ(Load<uint64_t>(event.find(2)->second, 0), 300u);
  const auto summary = ReadFields(event.find(5)->second);
  ASSERT_EQ(summary.count(1), 2u);
  std::map<std::string, float> values;
  for (const auto& [number, bytes] : summary) {
    const auto value = ReadFields(bytes);
    values[value.find(1)->second] = Load<float>(value.find(2)->second, 0);
  }
  EXPECT_EQ(values,
            (std::map<std::string, float>{{"train/loss", 3.25f}, {"train/learning_rate", 1e-3f}}));
}

TEST(TensorBoardTest, ResumingStartsALaterFileWithASessionStart) {
  const TempFolder folder;
  std::string earlier;
  for (int i = 0; i < 3; ++i) {  // Within one second: names must rise all the same.
    TensorBoardWriter writer(folder.path(), 40, FixedClock(999'999'999.2));
    EXPECT_GT(writer.path(), earlier);
    earlier = writer.path();
    const auto events = ReadRecords(writer.path());
    ASSERT_EQ(events.size(), 2u);
    const auto start = ReadFields(events[1]);
    EXPECT_EQ(Load<uint64_t>(start.find(2)->second, 0), 41u);
    EXPECT_EQ(Load<uint64_t>(ReadFields(start.find(7)->second).find(1)->second, 0), 1u);
  }
}

TEST(TensorBoardTest, AClockThatWentBackKeepsTheOrder) {
  const TempFolder folder;
  const std::string first = TensorBoardWriter(folder.path(), 0, FixedClock(5000)).path();
  const std::string second = TensorBoardWriter(folder.path(), 0, FixedClock(100)).path();
  EXPECT_GT(second, first);
}

TEST(TensorBoardTest, RollingBackWritesASessionStart) {
  const TempFolder folder;
  TensorBoardWriter writer(folder.path(), 0, FixedClock(1));
  writer.Add(200, {{"loss", 1.0}});
  writer.RollBackTo(128);
  const auto events = ReadRecords(writer.path());
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(Load<uint64_t>(ReadFields(events[2]).find(2)->second, 0), 129u);
}

TEST(TensorBoardTest, AFolderThatCannotBeMadeIsAResourceError) {
  const TempFolder folder;
  WriteFileAtomically(folder / "f", "x");
  EXPECT_THROW(TensorBoardWriter(folder / "f/tb", 0, FixedClock(1)), ResourceError);
}

}  // namespace
}  // namespace tern
