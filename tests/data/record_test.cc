// Records of dataset files: every format gives the same records wherever buffers end, and what is
// damaged, too long, too deep or packed too well is refused with file and line.
#include <gtest/gtest.h>
#include <zstd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "data/record_file.h"
#include "tests/testing/temp_folder.h"

namespace tern::data {
namespace {

using tern::testing::TempFolder;

std::string Packed(const std::string& text, int window_log = 0) {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  if (window_log > 0) ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window_log);
  std::string out(ZSTD_compressBound(text.size()), '\0');
  // Streamed, so that the frame does not carry the size and the window is what was asked for.
  ZSTD_inBuffer from{text.data(), text.size(), 0};
  ZSTD_outBuffer to{out.data(), out.size(), 0};
  ZSTD_compressStream2(context, &to, &from, ZSTD_e_continue);
  while (ZSTD_compressStream2(context, &to, &from, ZSTD_e_end) != 0) {
  }
  ZSTD_freeCCtx(context);
  out.resize(to.pos);
  return out;
}

class RecordTest : public ::testing::Test {
 protected:
  std::string Add(const std::string& name, const std::string& bytes) {
    WriteFileAtomically(folder_ / name, bytes);
    return folder_ / name;
  }
  static std::vector<Record> All(const std::string& path, const RecordOptions& options = {}) {
    RecordFile file(path, options);
    std::vector<Record> records;
    for (Record record; file.Next(&record);) records.push_back(record);
    EXPECT_FALSE(file.Next(&records.emplace_back())) << "the end stays the end";
    records.pop_back();
    return records;
  }
  // The message of what reading all of it throws.
  std::string Refused(const std::string& name, const std::string& bytes,
                      const RecordOptions& options = {}) {
    try {
      All(Add(name, bytes), options);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kInput) << error.what();
      return error.what();
    }
    return "accepted";
  }
  TempFolder folder_;
};

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

// Lengths around the reader's buffer of 1 MiB, in each format and packed.
TEST_F(RecordTest, BordersOfTheBufferDoNotShow) {
  std::vector<std::string> texts = {"", "a", "\\\"}{][,"};
  for (const int64_t size : {1 << 20, (1 << 20) - 13, (2 << 20) + 1})
    texts.push_back(std::string(static_cast<size_t>(size), 'x'));
  for (int i = 0; i < 3000; ++i)
    texts.push_back(std::string(static_cast<size_t>(i * 7 % 900), static_cast<char>('a' + i % 26)));
  std::string lines, array = "[", loose;
  for (const std::string& text : texts) {
    std::string escaped;
    for (const char c : text)
      escaped += c == '"' || c == '\\' ? std::string{'\\', c} : std::string{c};
    const std::string object = "{\"id\": [1, {\"text\": 2}], \"text\": \"" + escaped + "\"}";
    lines += object + "\r\n" + (text.size() % 3 == 0 ? "  \n" : "");
    array += (array.size() > 1 ? " ,\n" : "\n") + object;
    loose += object + (text.size() % 2 == 0 ? "\n" : "");
  }
  array += "\n]\n";
  const std::string mark = "\xEF\xBB\xBF";
  for (const auto& [name, bytes] : std::vector<std::pair<std::string, std::string>>{
           {"a.jsonl", mark + lines},
           {"b.jsonl.zst", Packed(lines)},
           {"c.ndjson.zst", Packed(lines.substr(0, 1000)) + Packed(lines.substr(1000))},
           {"d.json", array},
           {"e.json.zst", Packed(array)},
           {"f.json", loose}}) {
    const std::vector<Record> records = All(Add(name, bytes));
    ASSERT_EQ(records.size(), texts.size()) << name;
    for (size_t i = 0; i < texts.size(); ++i) {
      ASSERT_EQ(TextOf(records[i].text, RecordFormat::kJsonl, "text", {}, name), texts[i]);
    }
    RecordFile file(folder_ / name);
    file.Skip(3000);
    Record record;
    ASSERT_TRUE(file.Next(&record));
    EXPECT_EQ(record.text, records[3000].text) << name;
    EXPECT_EQ(record.number, records[3000].number) << name;
    EXPECT_THROW(file.Skip(1000), FormatError);
  }
}

TEST_F(RecordTest, PlainTextIsOneRecord) {
  const std::string text = "one\n\ntwo " + std::string(3 << 20, 'z');
  EXPECT_EQ(All(Add("a.txt", text)).at(0).text, text);
  EXPECT_EQ(All(Add("a.txt.zst", Packed(text))).at(0).text, text);
  EXPECT_EQ(All(Add("empty.jsonl", "")).size(), 0u);
  EXPECT_EQ(All(Add("empty.json", " [ ] ")).size(), 0u);
  EXPECT_EQ(All(Add("empty.json", "")).size(), 0u);
  EXPECT_HAS(Refused("bad.txt", "ab\xFF"), "byte 2");
}

TEST_F(RecordTest, WhatIsNoRecordIsNamedWithItsLine) {
  const std::string good = "{\"text\": \"a\"}\n";
  EXPECT_HAS(Refused("a.jsonl", good + "{\"text\": \n"), "a.jsonl:2");
  EXPECT_HAS(Refused("a.jsonl", good + "\n" + "[1]\n"), "a.jsonl:3: an array where a JSON object");
  EXPECT_HAS(Refused("a.jsonl", good + "17"), "a.jsonl:2: a number where");
  EXPECT_HAS(Refused("a.jsonl", good + "{} {}"), "a.jsonl:2");
  EXPECT_HAS(Refused("a.jsonl", "{\"text\": \"\xFF\"}"), "a.jsonl:1");
  EXPECT_HAS(Refused("a.json", "[{}, 3]"), "object 2: found another character where an object");
  EXPECT_HAS(Refused("a.json", "[{} {}]"), "object 1");
  EXPECT_HAS(Refused("a.json", "[{}] x"), "end of the file");
  EXPECT_HAS(Refused("a.json", "[{\"a\": [1}"), "object 1: the file ends");
  EXPECT_HAS(Refused("a.csv", "a,b"), "the name does not say");
  EXPECT_HAS(Refused("a.jsonl.gz", ""), "gzip");
  RecordOptions few;
  few.max_records = 1;
  EXPECT_HAS(Refused("a.jsonl", good + good, few), "more than 1 records");
  EXPECT_THROW(RecordFile(folder_ / "none.jsonl"), InputError);
  MakeFolders(folder_ / "folder.jsonl");
  EXPECT_THROW(RecordFile(folder_ / "folder.jsonl"), InputError);
}

TEST_F(RecordTest, LimitsHold) {
  RecordOptions options;
  options.max_record_bytes = 100;
  options.max_depth = 5;
  EXPECT_HAS(Refused("a.jsonl", "{\"text\": \"" + std::string(90, 'x') + "\"}", options),
             "a.jsonl:1: more than 100 bytes");
  EXPECT_HAS(Refused("a.json", "[" + std::string(200, '{'), options), "object 1: more than 100");
  EXPECT_HAS(Refused("a.txt", std::string(101, 'x'), options), "more than 100 bytes");
  EXPECT_HAS(Refused("a.jsonl", "{\"a\":[[[[[1]]]]]}", options), "deeper than 5");
  EXPECT_EQ(Refused("a.jsonl", "{\"a\":[[[[1]]]]}", options), "accepted");
  EXPECT_HAS(Refused("deep.jsonl", "{\"a\":" + std::string(1 << 20, '[')), "deeper than 32");
}

TEST_F(RecordTest, PackedFilesHaveLimitsAndEnds) {
  const std::string line = "{\"text\": \"a\"}\n";
  std::string noise;
  RandomStream random(3, "noise");
  while (noise.size() < 200'000) noise += std::to_string(random.NextU64());
  const std::string packed = Packed("{\"text\": \"" + noise + "\"}\n");
  EXPECT_EQ(Refused("a.jsonl.zst", packed), "accepted");
  EXPECT_HAS(Refused("a.jsonl.zst", packed.substr(0, packed.size() - 9)), "cut off");
  EXPECT_HAS(Refused("a.jsonl.zst", line), "zstd");
  std::string damaged = packed;
  damaged[4] ^= 0x08;  // A reserved bit of the frame header
  EXPECT_HAS(Refused("a.jsonl.zst", damaged), "zstd");
  const std::string far(size_t{1} << 20, ' ');
  std::string bomb;
  for (int i = 0; i < 200; ++i) bomb += Packed(far);
  EXPECT_HAS(Refused("bomb.jsonl.zst", bomb), "to one is no text");
  EXPECT_HAS(Refused("far.jsonl.zst", Packed(line, 28)), "2^27");
}

TEST_F(RecordTest, TheFieldMustHoldText) {
  const auto refused = [](const std::string& record) -> std::string {
    try {
      TextOf(record, RecordFormat::kJsonl, "text", {}, "f:1");
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_HAS(refused("{\"content\": \"x\", \"id\": {\"text\": \"y\"}}"), "keys here: content, id");
  EXPECT_HAS(refused("{\"text\": null}"), "it is null");
  EXPECT_HAS(refused("{\"text\": [\"a\"]}"), "it is an array");
  EXPECT_HAS(refused("{\"text\": \"a\", \"text\": \"b\"}"), "second time");
  EXPECT_HAS(refused("{\"text\": \"a\\u0000b\"}"), "NUL");
  EXPECT_EQ(
      TextOf("{\"text\": \"\\u00e9\\ud83d\\ude00\\n\"}", RecordFormat::kJsonl, "text", {}, ""),
      "\xC3\xA9\xF0\x9F\x98\x80\n");
}

using RecordFuzz = RecordTest;

TEST_F(RecordFuzz, DamagedFilesAreRefusedOrRead) {
  std::string lines;
  for (int i = 0; i < 40; ++i)
    lines +=
        "{\"id\": " + std::to_string(i) + ", \"text\": \"word \\\" \\u00e9\", \"l\": [1, {}]}\n";
  std::string array = "[" + lines + "]";
  for (size_t at = array.find("}\n{"); at != std::string::npos; at = array.find("}\n{"))
    array[at + 1] = ',';
  RandomStream random(1, "fuzz");
  RecordOptions options;
  options.max_record_bytes = 4096;
  int read = 0;
  for (int round = 0; round < 1200; ++round) {
    const std::string name = round % 3 == 0 ? "a.jsonl" : round % 3 == 1 ? "a.json" : "a.jsonl.zst";
    std::string bytes = round % 3 == 0 ? lines : round % 3 == 1 ? array : Packed(lines);
    if (round % 5 == 0) bytes.resize(random.NextU64() % bytes.size());
    for (uint64_t flips = random.NextU64() % 4; flips > 0 && !bytes.empty(); --flips)
      bytes[random.NextU64() % bytes.size()] ^= static_cast<char>(1u << random.NextU64() % 8);
    try {
      All(Add(name, bytes), options);
      ++read;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kInput) << error.what();
    }
  }
  EXPECT_GT(read, 50) << "rounds without damage";
}

}  // namespace
}  // namespace tern::data
