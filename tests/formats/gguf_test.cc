// GGUF: golden file of gguf-py, round trips, and one refusal for each rule of the reader.
#include "formats/gguf.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "base/error.h"
#include "base/file.h"
#include "golden.h"
#include "tests/testing/temp_folder.h"

namespace tern::formats {
namespace {

using tern::testing::TempFolder;
using testing::FloatsFromHex;
using testing::FromHex;
using testing::Golden;

constexpr uint32_t kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9, kU64 = 10;

// A GGUF by hand, so that every field can be wrong.
class Bytes {
 public:
  template <class T>
  Bytes& Put(T value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Bytes& Text(const std::string& text) {
    Put(uint64_t{text.size()});
    out_ += text;
    return *this;
  }
  Bytes& Head(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
    out_ += "GGUF";
    return Put(version).Put(tensors).Put(keys);
  }
  Bytes& Tensor(const std::string& name, std::vector<int64_t> ne, uint32_t type, uint64_t offset) {
    Text(name).Put(static_cast<uint32_t>(ne.size()));
    for (const int64_t size : ne) Put(size);
    return Put(type).Put(offset);
  }
  Bytes& Data(size_t size, size_t alignment = 32) {
    out_.resize((out_.size() + alignment - 1) / alignment * alignment + size, '\0');
    return *this;
  }
  const std::string& str() const { return out_; }

 private:
  std::string out_;
};

GgufReader Open(const TempFolder& folder, const std::string& bytes) {
  WriteFileAtomically(folder / "file.gguf", bytes);
  return GgufReader(folder / "file.gguf");
}

// The message must have the file's name and `word`.
void ExpectRefused(const Bytes& bytes, const std::string& word) {
  const TempFolder folder;
  try {
    Open(folder, bytes.str());
    ADD_FAILURE() << "accepted; want a refusal with: " << word;
  } catch (const FormatError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find(word), std::string::npos) << message;
    EXPECT_NE(message.find("file.gguf"), std::string::npos) << message;
  }
}

TEST(GgufReaderTest, ReadsAFileOfGgufPy) {
  const TempFolder folder;
  const auto golden = Golden()["gguf"];
  const auto raw = FromHex(golden["bytes"]);
  const GgufReader file = Open(folder, std::string(raw.begin(), raw.end()));
  EXPECT_EQ(file.String("general.architecture"), "llama");
  EXPECT_EQ(file.Int("llama.block_count"), 2);
  EXPECT_EQ(static_cast<float>(file.Real("llama.attention.layer_norm_rms_epsilon")), 1e-5f);
  EXPECT_TRUE(file.Flag("tokenizer.ggml.add_bos_token"));
  EXPECT_EQ(file.Int("test.int64"), -(int64_t{1} << 40));
  EXPECT_EQ(file.Int("test.uint8"), 200);
  EXPECT_EQ(file.Real("test.float64"), 1.0 / 3);
  EXPECT_EQ(file.Strings("tokenizer.ggml.tokens"),
            (std::vector<std::string>{"<unk>", "\u2581the", "\U0001f600", ""}));
  EXPECT_EQ(file.Numbers("tokenizer.ggml.scores"), (std::vector<double>{0, -1.5, -2.25, 3}));
  EXPECT_EQ(file.Numbers("tokenizer.ggml.token_type"), (std::vector<double>{2, 1, 1, 6}));

  ASSERT_EQ(file.tensors().size(), 5u);
  const GgufTensor& dense = file.Get("dense.weight");
  EXPECT_EQ(dense.type, GgmlType::kF32);
  EXPECT_EQ(dense.shape, (std::vector<int64_t>{3, 64}));
  EXPECT_EQ(dense.rows(), 3);
  EXPECT_EQ(dense.row_elements(), 64);
  const auto want = FloatsFromHex(golden["dense_f32"]);
  std::vector<float> row(64);
  for (int64_t r = 0; r < 3; ++r) {
    DecodeRow(dense.type, dense.row(r), 64, row.data());
    EXPECT_EQ(row, std::vector<float>(want.begin() + r * 64, want.begin() + (r + 1) * 64));
  }
  EXPECT_EQ(file.Get("half.weight").type, GgmlType::kF16);
  EXPECT_EQ(file.Get("q8.weight").type, GgmlType::kQ8_0);
  const GgufTensor& ternary = file.Get("ternary.weight");
  const auto codes = FloatsFromHex(golden["codes_f32"]);
  std::vector<float> values(256);
  for (int64_t r = 0; r < 2; ++r) {
    DecodeRow(ternary.type, ternary.row(r), 256, values.data());
    EXPECT_EQ(values, std::vector<float>(codes.begin() + r * 256, codes.begin() + (r + 1) * 256));
  }
  float scale = 0;
  DecodeRow(GgmlType::kF32, file.Get("ternary.scale").row(0), 1, &scale);
  EXPECT_EQ(scale, 0.125f);
}

TEST(GgufReaderTest, MetadataAccessIsTyped) {
  const TempFolder folder;
  const GgufReader file = Open(folder, Bytes()
                                           .Head(0, 3)
                                           .Text("number")
                                           .Put(kU64)
                                           .Put(uint64_t{7})
                                           .Text("text")
                                           .Put(kString)
                                           .Text("\xFF\xFE raw")
                                           .Text("list")
                                           .Put(kArray)
                                           .Put(kI32)
                                           .Put(uint64_t{3})
                                           .Put(-1)
                                           .Put(0)
                                           .Put(5)
                                           .str());
  EXPECT_EQ(file.Int("number"), 7);
  EXPECT_EQ(file.String("text"), "\xFF\xFE raw");
  EXPECT_TRUE(file.Has("list"));
  EXPECT_FALSE(file.Has("nothing"));
  EXPECT_THROW(file.Int("nothing"), FormatError);
  EXPECT_THROW(file.Int("text"), FormatError);
  EXPECT_THROW(file.Real("number"), FormatError);
  EXPECT_THROW(file.Flag("number"), FormatError);
  EXPECT_THROW(file.Strings("list"), FormatError);
  EXPECT_EQ(file.Find("nothing"), nullptr);
  EXPECT_THROW(file.Get("nothing"), FormatError);
  const nlohmann::json shown = file.Metadata(2);
  EXPECT_EQ(shown["number"], 7);
  EXPECT_EQ(shown["text"], "\uFFFD\uFFFD raw");
  EXPECT_EQ(shown["list"]["items"], 3);
  EXPECT_EQ(shown["list"]["first"], (std::vector<double>{-1, 0}));
  EXPECT_NO_THROW(shown.dump());
}

TEST(GgufReaderTest, RefusesWrongHeads) {
  ExpectRefused(Bytes(), "the file ends");
  Bytes other;
  other.Put(uint64_t{0x1234}).Put(uint64_t{0}).Put(uint64_t{0});
  ExpectRefused(other, "letters GGUF");
  ExpectRefused(Bytes().Head(0, 0, 2), "version 2; want 3");
  ExpectRefused(Bytes().Head(0, 0, 0x03000000), "version");  // Big-endian
  ExpectRefused(Bytes().Head(uint64_t{1} << 40, 0), "tensors are announced");
  ExpectRefused(Bytes().Head(0, uint64_t{1} << 60), "metadata keys are announced");
  ExpectRefused(Bytes().Head(0, 1), "at byte 24: the file ends");
}

TEST(GgufReaderTest, RefusesWrongMetadata) {
  const auto key = [] { return Bytes().Head(0, 1).Text("key"); };
  ExpectRefused(key().Put(uint32_t{13}).Put(uint64_t{0}), "unknown metadata type 13");
  ExpectRefused(key().Put(kBool).Put(uint8_t{2}), "a truth value of 2");
  ExpectRefused(key().Put(kU64).Put(~uint64_t{0}), "above 2^63");
  ExpectRefused(key().Put(kString).Put(uint64_t{100}), "a text of 100 bytes");
  ExpectRefused(key().Put(kString).Put(~uint64_t{0}), "a text of");
  ExpectRefused(key().Put(kArray).Put(kArray).Put(uint64_t{1}), "array of arrays");
  ExpectRefused(key().Put(kArray).Put(uint32_t{77}).Put(uint64_t{0}), "unknown type 77");
  ExpectRefused(key().Put(kArray).Put(kU32).Put(uint64_t{1} << 50), "array items are announced");
  ExpectRefused(key().Put(kArray).Put(kU32).Put(uint64_t{9}).Put(uint32_t{1}), "the file ends");
  ExpectRefused(Bytes().Head(0, 1).Put(uint64_t{1} << 20), "a text of 1048576 bytes");
  ExpectRefused(Bytes()
                    .Head(0, 2)
                    .Text("key")
                    .Put(kU32)
                    .Put(uint32_t{1})
                    .Text("key")
                    .Put(kU32)
                    .Put(uint32_t{2}),
                "the key key for the second time");
}

// The limit of array items is one for the whole file: two arrays below it are refused together.
TEST(GgufReaderTest, ArrayItemsAreLimitedTogether) {
  constexpr uint64_t kThreeMillion = 3'000'000;
  Bytes bytes;
  bytes.Head(0, 2).Text("a").Put(kArray).Put(uint32_t{0}).Put(kThreeMillion).Data(kThreeMillion, 1);
  bytes.Text("b").Put(kArray).Put(uint32_t{0}).Put(kThreeMillion).Data(kThreeMillion, 1);
  ExpectRefused(bytes, "3000000 more array items are announced");
}

TEST(GgufReaderTest, RefusesWrongTensors) {
  const auto one = [](std::vector<int64_t> ne, uint32_t type, uint64_t offset) {
    return Bytes().Head(1, 0).Tensor("t", std::move(ne), type, offset).Data(128);
  };
  const TempFolder folder;
  EXPECT_EQ(Open(folder, one({4, 8}, 0, 0).str()).Get("t").shape, (std::vector<int64_t>{8, 4}));
  ExpectRefused(one({4, 9}, 0, 0), "144 bytes at offset 0 ends after a data part of 128");
  ExpectRefused(one({4, 8}, 0, 32), "ends after a data part of 128");
  ExpectRefused(one({4, 8}, 0, 1 << 20), "ends after a data part of 128");
  ExpectRefused(one({4, 8}, 0, ~uint64_t{31}), "ends after a data part of 128");
  ExpectRefused(one({4, 4}, 0, 8), "not aligned to 32");
  ExpectRefused(one({}, 0, 0), "0 axes");
  ExpectRefused(one({1, 1, 1, 1, 1}, 0, 0), "5 axes");
  ExpectRefused(Bytes().Head(1, 0).Tensor(std::string("a\0b", 3), {}, 0, 0).Data(32),
                "tensor a\\x00b has 0 axes");
  ExpectRefused(one({0, 4}, 0, 0), "an axis of 0");
  ExpectRefused(one({-4, 4}, 0, 0), "an axis of -4");
  ExpectRefused(one({int64_t{1} << 41, 4}, 0, 0), "an axis of");
  ExpectRefused(one({1 << 30, 1 << 30, 1 << 30, 1 << 30}, 0, 0), "larger than the file");
  ExpectRefused(one({4, 8}, 4, 0), "type 4, which this version does not read");
  ExpectRefused(one({64, 1}, 36, 0), "rows of 64");
  ExpectRefused(one({128, 4}, 36, 0), "160 bytes at offset 0 ends after a data part of 128");
  ExpectRefused(one({33, 1}, 8, 0), "rows of 33");
  ExpectRefused(one({255, 1}, 35, 0), "rows of 255");
  ExpectRefused(Bytes().Head(2, 0).Tensor("t", {8}, 0, 0).Tensor("t", {8}, 0, 32).Data(64),
                "the tensor t for the second time");
  ExpectRefused(Bytes().Head(2, 0).Tensor("a", {16}, 0, 0).Tensor("b", {8}, 0, 32).Data(64),
                "overlap");
  ExpectRefused(Bytes().Head(2, 0).Tensor("a", {8}, 0, 32).Tensor("b", {8}, 0, 32).Data(64),
                "overlap");
  ExpectRefused(Bytes().Head(1, 0).Tensor("t", {8}, 0, 0), "the file ends before its tensors");
}

TEST(GgufReaderTest, HonoursTheAlignmentOfTheFile) {
  const auto file = [](uint32_t alignment, uint64_t offset) {
    return Bytes()
        .Head(2, 1)
        .Text("general.alignment")
        .Put(kU32)
        .Put(alignment)
        .Tensor("a", {2}, 0, 0)
        .Tensor("b", {8}, 0, offset)
        .Data(offset + 32, alignment == 0 ? 1 : alignment);
  };
  const TempFolder folder;
  for (const uint32_t alignment : {8u, 64u, 4096u}) {
    const GgufReader reader = Open(folder, file(alignment, alignment).str());
    EXPECT_EQ(reader.Get("b").bytes.data() - reader.Get("a").bytes.data(), alignment);
  }
  ExpectRefused(file(64, 32), "not aligned to 64");
  for (const uint32_t alignment : {0u, 24u, 1u << 21}) {
    ExpectRefused(file(alignment, 32), "general.alignment");
  }
}

TEST(GgufReaderTest, MissingFileIsAnInputError) {
  const TempFolder folder;
  EXPECT_THROW(GgufReader(folder / "none.gguf"), InputError);
}

TEST(GgufWriterTest, MetadataComesBack) {
  const TempFolder folder;
  GgufWriter writer("bitnet");
  writer.AddU32("u", 4'000'000'000u);
  writer.AddF32("f", 0.1f);
  writer.AddBool("yes", true);
  writer.AddBool("no", false);
  writer.AddString("empty", "");
  writer.AddStrings("texts", {"a", "", std::string("\0\xFF", 2)});
  writer.AddF32s("floats", {1.5f, -2.0f});
  writer.AddI32s("ints", {-3, 2'000'000'000});
  writer.AddStrings("none", {});
  writer.Write(folder / "out.gguf");
  const GgufReader file(folder / "out.gguf");
  EXPECT_EQ(file.String("general.architecture"), "bitnet");
  EXPECT_EQ(file.Int("u"), 4'000'000'000);
  EXPECT_EQ(file.Real("f"), double{0.1f});
  EXPECT_TRUE(file.Flag("yes"));
  EXPECT_FALSE(file.Flag("no"));
  EXPECT_EQ(file.String("empty"), "");
  EXPECT_EQ(file.Strings("texts"), (std::vector<std::string>{"a", "", std::string("\0\xFF", 2)}));
  EXPECT_EQ(file.Numbers("floats"), (std::vector<double>{1.5, -2}));
  EXPECT_EQ(file.Numbers("ints"), (std::vector<double>{-3, 2e9}));
  EXPECT_TRUE(file.Strings("none").empty());
}

// Rows in order, every tensor at a multiple of 32.
TEST(GgufWriterTest, TensorsComeBack) {
  const TempFolder folder;
  GgufWriter writer("bitnet");
  // Rows larger and smaller than the writer's buffer of 1 MiB, and a number that does not divide.
  const int64_t wide = 300'000, n = 5, narrow_rows = 400'000;
  writer.AddTensor("wide", GgmlType::kF32, {n, wide}, [&](int64_t row, uint8_t* out) {
    std::vector<float> x(static_cast<size_t>(wide), static_cast<float>(row));
    EncodeRow(GgmlType::kF32, x.data(), wide, out);
  });
  writer.AddTensor("narrow", GgmlType::kF16, {narrow_rows, 3}, [](int64_t row, uint8_t* out) {
    const float x[] = {static_cast<float>(row % 2048), 0, 1};
    EncodeRow(GgmlType::kF16, x, 3, out);
  });
  writer.AddTensor("cube", GgmlType::kF32, {2, 3, 1}, [](int64_t row, uint8_t* out) {
    const float x = static_cast<float>(row);
    EncodeRow(GgmlType::kF32, &x, 1, out);
  });
  writer.AddTensor("vector", GgmlType::kF32, {1}, [](int64_t, uint8_t* out) {
    const float x = 0.1f;
    EncodeRow(GgmlType::kF32, &x, 1, out);
  });
  writer.Write(folder / "out.gguf");

  const GgufReader file(folder / "out.gguf");
  const auto* base = reinterpret_cast<const char*>(file.Get("wide").bytes.data());
  for (const GgufTensor& tensor : file.tensors()) {
    EXPECT_EQ((reinterpret_cast<const char*>(tensor.bytes.data()) - base) % 32, 0);
  }
  for (int64_t r = 0; r < n; ++r) {
    std::vector<float> x(static_cast<size_t>(wide));
    DecodeRow(GgmlType::kF32, file.Get("wide").row(r), wide, x.data());
    EXPECT_EQ(x, std::vector<float>(static_cast<size_t>(wide), static_cast<float>(r)));
  }
  for (int64_t r = 0; r < narrow_rows; ++r) {
    float x[3];
    DecodeRow(GgmlType::kF16, file.Get("narrow").row(r), 3, x);
    ASSERT_EQ(x[0], static_cast<float>(r % 2048));
  }
  EXPECT_EQ(file.Get("cube").shape, (std::vector<int64_t>{2, 3, 1}));
  EXPECT_EQ(file.Get("cube").rows(), 6);
  float x = 0;
  for (int64_t r = 0; r < 6; ++r) {
    DecodeRow(GgmlType::kF32, file.Get("cube").row(r), 1, &x);
    EXPECT_EQ(x, static_cast<float>(r));
  }
  EXPECT_EQ(file.Get("vector").rows(), 1);
  DecodeRow(GgmlType::kF32, file.Get("vector").row(0), 1, &x);
  EXPECT_EQ(x, 0.1f);
}

TEST(GgufWriterTest, WritesTheBytesOfGgufPy) {
  const TempFolder folder;
  const auto golden = Golden()["gguf"];
  const auto raw = FromHex(golden["bytes"]);
  const GgufReader reference = Open(folder, std::string(raw.begin(), raw.end()));
  GgufWriter writer("llama");
  writer.AddU32("u", 1);
  for (const GgufTensor& tensor : reference.tensors()) {
    writer.AddTensor(tensor.name, tensor.type, tensor.shape, [&tensor](int64_t row, uint8_t* out) {
      std::memcpy(out, tensor.row(row),
                  static_cast<size_t>(RowBytes(tensor.type, tensor.row_elements())));
    });
  }
  writer.Write(folder / "ours.gguf");
  // Tensor infos and data are the same bytes; only the metadata before them is another.
  const std::string ours = ReadFile(folder / "ours.gguf");
  const std::string theirs(raw.begin(), raw.end());
  const auto infos = [&](const std::string& all) {
    // The last info: its name, axes, one axis, type, offset.
    const std::string last = "ternary.scale";
    const size_t begin = all.find("dense.weight"),
                 end = all.find(last) + last.size() + 4 + 8 + 4 + 8;
    return all.substr(begin, end - begin);
  };
  EXPECT_EQ(infos(ours), infos(theirs));
  const auto data_of = [](const GgufReader& file) {
    const auto& first_tensor = file.tensors().front();
    const auto& last = file.tensors().back();
    return std::string(reinterpret_cast<const char*>(first_tensor.bytes.data()),
                       reinterpret_cast<const char*>(last.bytes.data() + last.bytes.size()));
  };
  EXPECT_EQ(data_of(GgufReader(folder / "ours.gguf")), data_of(reference));
}

TEST(GgufWriterTest, MistakesOfTheCallerAreBugs) {
  const auto none = [](int64_t, uint8_t*) {};
  GgufWriter writer("llama");
  writer.AddTensor("t", GgmlType::kF32, {1}, none);
  EXPECT_THROW(writer.AddString("general.architecture", "x"), BugError);
  EXPECT_THROW(writer.AddTensor("t", GgmlType::kF32, {1}, none), BugError);
  EXPECT_THROW(writer.AddTensor("", GgmlType::kF32, {1}, none), BugError);
  EXPECT_THROW(writer.AddTensor(std::string(64, 'n'), GgmlType::kF32, {1}, none), BugError);
  EXPECT_THROW(writer.AddTensor("u", GgmlType::kF32, {}, none), BugError);
  EXPECT_THROW(writer.AddTensor("u", GgmlType::kF32, {1, 1, 1, 1, 1}, none), BugError);
  EXPECT_THROW(writer.AddTensor("u", GgmlType::kF32, {0}, none), BugError);
  EXPECT_THROW(writer.AddTensor("u", GgmlType::kTq2_0, {4, 128}, none), FormatError);
}

TEST(GgufWriterTest, FailureLeavesTheOldFileAndNothingElse) {
  const TempFolder folder;
  WriteFileAtomically(folder / "out.gguf", "old");
  GgufWriter writer("llama");
  writer.AddTensor("t", GgmlType::kF32, {2, 4}, [](int64_t row, uint8_t*) {
    if (row == 1) throw NumericError("stop");
  });
  EXPECT_THROW(writer.Write(folder / "out.gguf"), NumericError);
  EXPECT_EQ(ReadFile(folder / "out.gguf"), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()),
                          std::filesystem::directory_iterator()),
            1);
  EXPECT_THROW(writer.Write(folder / "none/out.gguf"), ResourceError);
}

}  // namespace
}  // namespace tern::formats
