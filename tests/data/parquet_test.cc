// Parquet through the plug-in: rows come out as the JSON that pyarrow's writer meant, whatever the
// codec; damage is refused by name. Where the plug-in was not built, the refusal says so.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "data/record_file.h"
#include "tests/testing/temp_folder.h"

namespace tern::data {
namespace {

using nlohmann::json;
using tern::testing::TempFolder;

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

std::string Golden(const std::string& name) {
  return std::string(TERN_SOURCE_DIR "/tests/data/golden/") + name;
}

std::string MessageOf(const std::string& path, const RecordOptions& options = {}) {
  try {
    RecordFile file(path, options);
    for (Record record; file.Next(&record);) {
    }
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

class ParquetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string message = MessageOf(Golden("rows.snappy.parquet"));
    if (message == "accepted") return;
    ASSERT_NE(message.find("this build cannot read parquet"), std::string::npos) << message;
    GTEST_SKIP() << message;
  }
  TempFolder folder_;
};

// Goal: equal values, not equal spellings: both sides are parsed.
TEST_F(ParquetTest, RowsAreTheJsonThatWasMeant) {
  for (const char* name : {"rows.snappy.parquet", "rows.zstd.parquet", "rows.gzip.parquet"}) {
    RecordFile rows(Golden(name)), want(Golden("rows.jsonl"));
    Record row, line;
    int64_t count = 0;
    while (want.Next(&line)) {
      ASSERT_TRUE(rows.Next(&row)) << name;
      EXPECT_EQ(row.number, ++count);
      EXPECT_EQ(json::parse(row.text), json::parse(line.text)) << name << " row " << count;
    }
    EXPECT_FALSE(rows.Next(&row));
    EXPECT_EQ(count, 25);
    EXPECT_EQ(rows.bytes_read(), static_cast<int64_t>(std::filesystem::file_size(Golden(name))));
  }
}

// Row groups have 10 rows: borders, in and behind them, from the start and later.
TEST_F(ParquetTest, SkippingIsReadingWithoutTheRows) {
  for (int64_t first = 0; first <= 25; ++first) {
    for (const int64_t more : {0, 1, 9, 10, 11}) {
      if (first + 1 + more > 24) continue;
      RecordFile rows(Golden("rows.zstd.parquet"));
      Record row;
      rows.Skip(first);
      ASSERT_TRUE(rows.Next(&row));
      EXPECT_EQ(json::parse(row.text)["small"], 255 - first);
      rows.Skip(more);
      ASSERT_TRUE(rows.Next(&row));
      EXPECT_EQ(json::parse(row.text)["small"], 255 - (first + 1 + more));
      EXPECT_EQ(row.number, first + more + 2);
    }
  }
  RecordFile rows(Golden("rows.zstd.parquet"));
  EXPECT_THROW(rows.Skip(26), FormatError);
}

TEST_F(ParquetTest, OnlyTheWantedColumnsAreRead) {
  RecordOptions options;
  options.columns = {"text"};
  RecordFile rows(Golden("rows.snappy.parquet"), options);
  Record row;
  ASSERT_TRUE(rows.Next(&row));
  EXPECT_EQ(json::parse(row.text).size(), 1u);
  EXPECT_HAS(TextOf(row.text, RecordFormat::kParquet, "text", {}, "row"), "row 0 \"quoted\"");
  options.columns = {"body"};
  EXPECT_HAS(MessageOf(Golden("rows.snappy.parquet"), options),
             "no column \"body\"; columns here: text, id");
  options.columns = {};
  options.max_record_bytes = 50;
  EXPECT_HAS(MessageOf(Golden("rows.snappy.parquet"), options), "row 1: more than 50 bytes");
  options.max_record_bytes = 5000;
  options.max_records = 24;
  EXPECT_HAS(MessageOf(Golden("rows.snappy.parquet"), options), "more than 24 records");
}

using ParquetFuzz = ParquetTest;

TEST_F(ParquetFuzz, DamagedFilesAreRefusedOrRead) {
  RandomStream random(1, "fuzz");
  const std::string path = folder_ / "a.parquet";
  EXPECT_HAS(MessageOf(Golden("rows.jsonl") + "/x.parquet"), "cannot read");
  int refused = 0;
  for (int round = 0; round < 240; ++round) {
    std::string bytes = ReadFile(Golden(round % 3 == 0   ? "rows.snappy.parquet"
                                        : round % 3 == 1 ? "rows.zstd.parquet"
                                                         : "rows.gzip.parquet"));
    if (round % 5 == 0) bytes.resize(random.NextU64() % bytes.size());
    for (uint64_t flips = random.NextU64() % 4; flips > 0 && !bytes.empty(); --flips)
      bytes[random.NextU64() % bytes.size()] ^= static_cast<char>(1u << random.NextU64() % 8);
    WriteFileAtomically(path, bytes);
    refused += MessageOf(path) != "accepted";
  }
  EXPECT_GT(refused, 50);
}

}  // namespace
}  // namespace tern::data
