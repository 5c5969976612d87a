// What is written comes back, by the same types and shapes; every misuse has its own error.
#include "h5/h5.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <numeric>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "tests/h5/sample_file.h"
#include "tests/testing/temp_folder.h"

namespace tern::h5 {
namespace {

using tern::testing::TempFolder;

constexpr Type kAllTypes[] = {Type::kF32, Type::kF64, Type::kF16, Type::kU8,  Type::kI8,
                              Type::kU16, Type::kI32, Type::kU32, Type::kI64, Type::kU64};

std::string MessageOf(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(H5FileTest, SampleComesBack) {
  const TempFolder folder;
  WriteSampleFile(folder / "a.h5");
  ReadSampleFile(folder / "a.h5");
}

// Two readers of one file: HDF5 has it open once, for the first, which goes first (ASan watches).
TEST(H5FileTest, FileIsOpenTwice) {
  const TempFolder folder;
  WriteSampleFile(folder / "a.h5");
  for (int i = 0; i < 10; ++i) {
    auto first = std::make_unique<File>(File::OpenForReading(folder / "a.h5"));
    auto second = std::make_unique<File>(File::OpenForReading(folder / "a.h5"));
    first.reset();
    std::vector<std::vector<int>> taken;  // The memory that the first had
    for (int j = 0; j < 64; ++j) taken.emplace_back(4, 7);
    EXPECT_FALSE(second->ListDatasets().empty());
    second.reset();
    for (const std::vector<int>& numbers : taken) EXPECT_EQ(numbers, std::vector<int>(4, 7));
  }
}

// Goal: bytes are kept for every type, size (0, 1, odd, more than a chunk) and chunking.
TEST(H5FileTest, EveryTypeSizeAndChunkingKeepsItsBytes) {
  const TempFolder folder;
  const std::string path = folder / "a.h5";
  for (const int64_t chunk_bytes : {int64_t{0}, int64_t{1}, int64_t{64}, int64_t{1} << 20}) {
    for (const int64_t rows : {0, 1, 3, 130}) {
      File out = File::Create(path);
      WriteOptions options;
      options.chunk_bytes = chunk_bytes;
      std::vector<uint8_t> bytes(static_cast<size_t>(rows) * 7 * 8);
      std::iota(bytes.begin(), bytes.end(), uint8_t{1});
      for (const Type type : kAllTypes) {
        const std::string name = "/group/" + std::to_string(static_cast<int>(type));
        out.Write(name, type, {rows, 7}, bytes.data(), options);
      }
      out.Close();
      const File in = File::OpenForReading(path);
      for (const Type type : kAllTypes) {
        const std::string name = "/group/" + std::to_string(static_cast<int>(type));
        EXPECT_EQ(in.Info(name).type, type);
        EXPECT_EQ(in.Info(name).shape, (std::vector<int64_t>{rows, 7}));
        const int64_t size_bytes = rows * 7 * SizeOf(type);
        std::vector<uint8_t> read(static_cast<size_t>(size_bytes), 0);
        in.Read(name, type, read.data(), size_bytes);
        EXPECT_TRUE(std::equal(read.begin(), read.end(), bytes.begin())) << name << " " << rows;
      }
    }
  }
}

TEST(H5FileTest, RangesOfAnAppendableDataset) {
  const TempFolder folder;
  File out = File::Create(folder / "a.h5");
  std::vector<uint32_t> all(2500);
  std::iota(all.begin(), all.end(), 0u);
  out.CreateAppendable("/t", Type::kU32, 512);
  size_t at = 0;
  for (size_t n = 0; at < all.size(); n += 61) {  // 0, 61, 122, ...: borders fall anywhere.
    const size_t count = std::min(n, all.size() - at);
    out.Append("/t", Type::kU32, all.data() + at, static_cast<int64_t>(count));
    at += count;
  }
  out.Close();
  const File in = File::OpenForReading(folder / "a.h5");
  ASSERT_EQ(in.Info("/t").shape, std::vector<int64_t>{2500});
  for (const int64_t begin : {0, 1, 511, 512, 2499, 2500}) {
    const int64_t count = std::min<int64_t>(700, 2500 - begin);
    std::vector<uint32_t> part(static_cast<size_t>(count));
    in.ReadRange("/t", Type::kU32, begin, count, part.data());
    EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + begin)) << begin;
  }
  uint32_t one = 0;
  EXPECT_THROW(in.ReadRange("/t", Type::kU32, 2500, 1, &one), FormatError);
  EXPECT_THROW(in.ReadRange("/t", Type::kU32, -1, 1, &one), FormatError);
  EXPECT_THROW(in.ReadRange("/t", Type::kU32, INT64_MAX, 1, &one), FormatError);
}

TEST(H5FileTest, AttributesOfAnyLength) {
  const TempFolder folder;
  std::string long_text(200'000, 'x');  // More than the 64 KiB of an object header.
  for (size_t i = 0; i < long_text.size(); ++i) long_text[i] = static_cast<char>('a' + i % 26);
  File out = File::Create(folder / "a.h5");
  out.SetAttribute("/", "empty", std::string());
  out.SetAttribute("/", "long", long_text);
  for (int i = 0; i < 40; ++i) out.SetAttribute("/", "n" + std::to_string(i), int64_t{i});
  out.Close();
  const File in = File::OpenForReading(folder / "a.h5");
  EXPECT_EQ(in.StringAttribute("/", "empty"), "");
  EXPECT_EQ(in.StringAttribute("/", "long"), long_text);
  EXPECT_EQ(in.IntAttribute("/", "n39"), 39);
  EXPECT_EQ(in.AttributeNames("/").size(), 42u);
  EXPECT_TRUE(in.HasAttribute("/", "n0"));
  EXPECT_FALSE(in.HasAttribute("/", "n40"));
  EXPECT_FALSE(in.HasAttribute("/none", "n0"));
  EXPECT_THROW(in.IntAttribute("/", "long"), FormatError);
  EXPECT_THROW(in.StringAttribute("/", "n0"), FormatError);
  EXPECT_THROW(in.StringAttribute("/", "none"), FormatError);
}

TEST(H5FileTest, WrongTypeSizeOrNameIsAFormatErrorThatNamesFileAndDataset) {
  const TempFolder folder;
  const std::string path = folder / "a.h5";
  WriteSampleFile(path);
  const File file = File::OpenForReading(path);
  std::vector<float> out(37 * 5);
  const auto expect_named = [&](const std::string& message) {
    EXPECT_NE(message.find(path), std::string::npos) << message;
    EXPECT_NE(message.find("weight"), std::string::npos) << message;
  };
  expect_named(
      MessageOf([&] { file.Read("/model/layers.0.weight", Type::kI32, out.data(), 37 * 5 * 4); }));
  expect_named(MessageOf([&] { file.Read("/model/layers.0.weight", Type::kF32, out.data(), 4); }));
  expect_named(MessageOf([&] { file.Info("/model/no_weight"); }));
  EXPECT_TRUE(file.Has("/model/layers.0.weight"));
  EXPECT_FALSE(file.Has("/model/layers.1.weight"));
  EXPECT_FALSE(file.Has("/nothing/at/all"));
}

TEST(H5FileTest, MissingFilesFoldersAndOtherFiles) {
  const TempFolder folder;
  EXPECT_THROW(File::OpenForReading(folder / "none.h5"), InputError);
  EXPECT_THROW(File::OpenForReading(folder.path()), InputError);
  EXPECT_THROW(File::Create(folder / "no/such/folder.h5"), ResourceError);
  WriteFileAtomically(folder / "empty.h5", "");
  EXPECT_THROW(File::OpenForReading(folder / "empty.h5"), FormatError);
  WriteFileAtomically(folder / "text.h5", std::string(5000, 'x'));
  const std::string message = MessageOf([&] { File::OpenForReading(folder / "text.h5"); });
  EXPECT_NE(message.find("signature"), std::string::npos) << "HDF5's own reason: " << message;
}

TEST(H5FileTest, MovedFilesGoOnAndCloseOnce) {
  const TempFolder folder;
  File a = File::Create(folder / "a.h5");
  File b = std::move(a);
  const int64_t value = 3;
  b.Write("/v", Type::kI64, {}, &value);
  b = File::Create(folder / "b.h5");
  b.Close();
  int64_t read = 0;
  File::OpenForReading(folder / "b.h5");
  const File in = File::OpenForReading(folder / "a.h5");
  in.Read("/v", Type::kI64, &read, 8);
  EXPECT_EQ(read, 3);
}

// Two files in two threads at once: the library's lock keeps them apart.
TEST(H5FileTest, ThreadsMayWorkOnDifferentFiles) {
  const TempFolder folder;
  const auto work = [&](const std::string& path) {
    for (int i = 0; i < 20; ++i) {
      WriteSampleFile(path);
      ReadSampleFile(path);
    }
  };
  std::thread other(work, folder / "other.h5");
  work(folder / "mine.h5");
  other.join();
}

}  // namespace
}  // namespace tern::h5
