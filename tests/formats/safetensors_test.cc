// safetensors: golden file of the Python package, round trips, shards, one refusal for each rule.
#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "formats/strict_json.h"
#include "golden.h"
#include "tests/testing/temp_folder.h"

namespace tern::formats {
namespace {

using tern::testing::TempFolder;
using testing::FloatsFromHex;
using testing::FromHex;
using testing::Golden;

std::string WithHeader(const std::string& header, size_t data_bytes) {
  const uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + header +
         std::string(data_bytes, '\0');
}

SafetensorsReader Open(const TempFolder& folder, const std::string& bytes) {
  WriteFileAtomically(folder / "file.safetensors", bytes);
  return SafetensorsReader(folder / "file.safetensors");
}

void ExpectRefused(const std::string& bytes, const std::string& word) {
  const TempFolder folder;
  try {
    Open(folder, bytes);
    ADD_FAILURE() << "accepted; want a refusal with: " << word;
  } catch (const FormatError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find(word), std::string::npos) << message;
    EXPECT_NE(message.find("file.safetensors"), std::string::npos) << message;
  }
}

template <class T>
std::vector<T> ValuesOf(const SafetensorsTensor& tensor) {
  std::vector<T> values(tensor.bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

TEST(SafetensorsReaderTest, ReadsAFileOfThePythonPackage) {
  const TempFolder folder;
  const auto golden = Golden()["safetensors"];
  const auto raw = FromHex(golden["bytes"]);
  const SafetensorsReader file = Open(folder, std::string(raw.begin(), raw.end()));
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.tensors().size(), 5u);
  EXPECT_EQ(file.Get("a.weight").dtype, "F32");
  EXPECT_EQ(file.Get("a.weight").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(ValuesOf<float>(file.Get("a.weight")), FloatsFromHex(golden["a_f32"]));
  EXPECT_EQ(ValuesOf<uint8_t>(file.Get("b.weight")), (std::vector<uint8_t>{0, 1, 2, 3, 4}));
  EXPECT_TRUE(file.Get("c").shape.empty());
  EXPECT_EQ(ValuesOf<double>(file.Get("c")), std::vector<double>{2.5});
  EXPECT_EQ(ValuesOf<int64_t>(file.Get("d")), (std::vector<int64_t>{-1, int64_t{1} << 40}));
  EXPECT_EQ(file.Get("empty").shape, (std::vector<int64_t>{0, 7}));
  EXPECT_TRUE(file.Get("empty").bytes.empty());
  EXPECT_EQ(file.size_bytes(), static_cast<int64_t>(raw.size()));
  EXPECT_THROW(file.Get("nothing"), FormatError);
}

TEST(SafetensorsReaderTest, RefusesWrongHeaders) {
  ExpectRefused("", "no safetensors file");
  ExpectRefused("1234567", "no safetensors file");
  ExpectRefused(std::string(8, '\xFF'), "a header of");
  ExpectRefused(WithHeader("{}", 0).substr(0, 9), "a header of 2 bytes");
  ExpectRefused(WithHeader("", 0), "not a JSON object");
  ExpectRefused(WithHeader("[]", 0), "not a JSON object");
  ExpectRefused(WithHeader(" {}", 0), "not a JSON object");
  ExpectRefused(WithHeader("{\"a\":", 0), "not valid JSON");
  ExpectRefused(WithHeader("{\"\xFF\": 1}", 0), "not valid JSON");
  ExpectRefused(WithHeader("{\"a\": 3}", 0), "not described by an object");
  ExpectRefused(WithHeader("{\"__metadata__\": 3}", 0), "__metadata__");
  ExpectRefused(WithHeader("{\"__metadata__\": {\"a\": 3}}", 0), "__metadata__.a is not a text");
  ExpectRefused(WithHeader("{\"a\": " + std::string(100'000, '['), 0), "nested deeper than 8");
  ExpectRefused(WithHeader(R"({"a\u0000b": {}})", 0), "the tensor \"a\\x00b\" has a control");
  ExpectRefused(WithHeader(R"({"\u001B[2J": {}})", 0), "the tensor \"\\x1B[2J\" has a control");
  const TempFolder folder;
  EXPECT_TRUE(Open(folder, WithHeader("{}      ", 0)).tensors().empty());
  // A header that claims more than the file has, and more than is believed.
  std::string huge = WithHeader("{}", 0);
  const uint64_t size = uint64_t{1} << 62;
  std::memcpy(huge.data(), &size, sizeof size);
  ExpectRefused(huge, "a header of 4611686018427387904 bytes");
}

std::string One(const std::string& fields, size_t data_bytes) {
  return WithHeader("{\"t\": {" + fields + "}}", data_bytes);
}

TEST(SafetensorsReaderTest, RefusesWrongTensors) {
  const TempFolder folder;
  const std::string good = R"("dtype":"F32","shape":[2,2],"data_offsets":[0,16])";
  EXPECT_EQ(Open(folder, One(good, 16)).Get("t").bytes.size(), 16u);
  ExpectRefused(One(good, 15), "lies at bytes 0 to 16 of a data part of 15");
  ExpectRefused(One(good, 17), "bytes 16 to 17 belong to no tensor");
  ExpectRefused(One(R"("shape":[4],"data_offsets":[0,16])", 16), "has no dtype");
  ExpectRefused(One(R"("dtype":"F32","data_offsets":[0,16])", 16), "has no shape");
  ExpectRefused(One(R"("dtype":"F32","shape":[4])", 16), "has no data_offsets");
  ExpectRefused(One(R"("dtype":"F31","shape":[4],"data_offsets":[0,16])", 16), "dtype F31");
  ExpectRefused(One(R"("dtype":"F\u000032","shape":[4],"data_offsets":[0,16])", 16),
                "has the dtype F\\x0032, which");
  ExpectRefused(One(R"("dtype":3,"shape":[4],"data_offsets":[0,16])", 16), "a dtype word");
  ExpectRefused(One(R"("dtype":"F32","shape":4,"data_offsets":[0,16])", 16), "a list as shape");
  ExpectRefused(One(R"("dtype":"F32","shape":{"0":4},"data_offsets":[0,16])", 16), "a list");
  ExpectRefused(One(R"("dtype":"F32","shape":[4.0],"data_offsets":[0,16])", 16), "whole numbers");
  ExpectRefused(One(R"("dtype":"F32","shape":[-4],"data_offsets":[0,16])", 16), "whole numbers");
  ExpectRefused(One(R"("dtype":"F32","shape":[4],"data_offsets":[0])", 16), "two data_offsets");
  ExpectRefused(One(R"("dtype":"F32","shape":[4],"data_offsets":[0,16,32])", 16), "two");
  ExpectRefused(One(R"("dtype":"F32","shape":[4],"data_offsets":[-1,15])", 16), "whole numbers");
  ExpectRefused(One(R"("dtype":"F32","shape":[4],"data_offsets":[16,0])", 16), "lies at bytes");
  ExpectRefused(One(R"("dtype":"F32","shape":[5],"data_offsets":[0,16])", 16), "want 20");
  ExpectRefused(One(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])", 0),
                "impossibly large");
  ExpectRefused(One(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,0])", 0),
                "number");
  ExpectRefused(WithHeader("{\"t\":{" + good + "},\"t\":{" + good + "}}", 16),
                "for the second time");
  ExpectRefused(WithHeader("{\"a\":{" + good + "},\"b\":{" + good + "}}", 16), "overlap");
  const std::string later = R"("dtype":"F32","shape":[1],"data_offsets":[20,24])";
  ExpectRefused(WithHeader("{\"a\":{" + good + "},\"b\":{" + later + "}}", 24),
                "bytes 16 to 20 belong to no tensor");
}

TEST(SafetensorsReaderTest, PathsThatHoldNothing) {
  const TempFolder folder;
  EXPECT_THROW(SafetensorsReader(folder / "none.safetensors"), InputError);
  EXPECT_THROW(SafetensorsReader(folder.path()), InputError);  // An empty folder
}

// A writer with tensors of every alignment; `values` must outlive it.
struct Sample {
  std::vector<uint8_t> bytes{1, 2, 3};
  std::vector<float> floats{0.5f, -1.5f, 2.5f, 3.5f, 4.5f, 5.5f};
  std::vector<uint16_t> halves{0x3C00, 0xBC00, 7};
  double wide = 0.1;
  void AddTo(SafetensorsWriter* writer) const {
    writer->Add("bytes", "U8", {3, 1}, bytes.data());
    writer->Add("floats", "F32", {2, 3}, floats.data());
    writer->Add("halves", "BF16", {3}, halves.data());
    writer->Add("wide", "F64", {}, &wide);
    writer->Add("none", "F32", {4, 0}, nullptr);
  }
  void ExpectIn(const SafetensorsReader& file) const {
    EXPECT_EQ(file.tensors().size(), 5u);
    EXPECT_EQ(ValuesOf<uint8_t>(file.Get("bytes")), bytes);
    EXPECT_EQ(file.Get("bytes").shape, (std::vector<int64_t>{3, 1}));
    EXPECT_EQ(ValuesOf<float>(file.Get("floats")), floats);
    EXPECT_EQ(ValuesOf<uint16_t>(file.Get("halves")), halves);
    EXPECT_EQ(file.Get("halves").dtype, "BF16");
    EXPECT_EQ(ValuesOf<double>(file.Get("wide")), std::vector<double>{wide});
    EXPECT_TRUE(file.Get("none").bytes.empty());
    EXPECT_EQ(file.metadata().at("format"), "pt");
  }
};

TEST(SafetensorsWriterTest, RoundTripsAndAlignsEachTensor) {
  const TempFolder folder;
  const Sample sample;
  SafetensorsWriter writer;
  sample.AddTo(&writer);
  writer.Write(folder / "one.safetensors");
  const SafetensorsReader file(folder / "one.safetensors");
  sample.ExpectIn(file);
  for (const auto& [name, tensor] : file.tensors()) {
    if (tensor.bytes.empty()) continue;
    const auto address = reinterpret_cast<uintptr_t>(tensor.bytes.data());
    EXPECT_EQ(address % static_cast<uintptr_t>(SafetensorsElementBytes(tensor.dtype)), 0u) << name;
  }
}

TEST(SafetensorsWriterTest, NothingIsAValidFile) {
  const TempFolder folder;
  SafetensorsWriter().Write(folder / "none.safetensors");
  EXPECT_TRUE(SafetensorsReader(folder / "none.safetensors").tensors().empty());
}

TEST(SafetensorsWriterTest, FolderIsOneFileOrShards) {
  const Sample sample;
  SafetensorsWriter writer;
  sample.AddTo(&writer);
  const TempFolder one;
  writer.WriteFolder(one.path());
  EXPECT_TRUE(std::filesystem::exists(one / "model.safetensors"));
  sample.ExpectIn(SafetensorsReader(one.path()));
  EXPECT_THROW(writer.WriteFolder(one.path()), InputError);  // Would be mixed

  const TempFolder many;
  writer.WriteFolder(many.path(), 24);  // bytes | floats | halves, wide, none
  EXPECT_TRUE(std::filesystem::exists(many / "model-00001-of-00003.safetensors"));
  EXPECT_TRUE(std::filesystem::exists(many / "model-00003-of-00003.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(many / "model.safetensors"));
  sample.ExpectIn(SafetensorsReader(many.path()));
  sample.ExpectIn(SafetensorsReader(many / "model.safetensors.index.json"));
  const auto index = nlohmann::json::parse(ReadFile(many / "model.safetensors.index.json"));
  EXPECT_EQ(index["metadata"]["total_size"], 3 + 24 + 6 + 8);
  EXPECT_EQ(index["weight_map"]["wide"], "model-00003-of-00003.safetensors");
}

TEST(SafetensorsWriterTest, MistakesOfTheCallerAreBugs) {
  SafetensorsWriter writer;
  writer.Add("a", "U8", {0}, nullptr);
  EXPECT_THROW(writer.Add("a", "U8", {0}, nullptr), BugError);
  EXPECT_THROW(writer.Add("b", "F31", {0}, nullptr), BugError);
  EXPECT_THROW(writer.Add("", "U8", {0}, nullptr), BugError);
  EXPECT_THROW(writer.Add("__metadata__", "U8", {0}, nullptr), BugError);
  EXPECT_THROW(writer.Add("b", "U8", {-1}, nullptr), BugError);
  const TempFolder folder;
  EXPECT_THROW(writer.Write(folder / "none/x.safetensors"), ResourceError);
}

class SafetensorsIndexTest : public ::testing::Test {
 protected:
  SafetensorsIndexTest() {
    sample_.AddTo(&writer_);
    writer_.WriteFolder(folder_.path(), 24);
    index_ = nlohmann::json::parse(ReadFile(folder_ / "model.safetensors.index.json"));
  }
  void ExpectRefused(const std::string& text, const std::string& word) {
    WriteFileAtomically(folder_ / "model.safetensors.index.json", text);
    try {
      const SafetensorsReader reader(folder_.path());
      ADD_FAILURE() << "accepted; want a refusal with: " << word;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kInput);
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
    }
  }

  TempFolder folder_;
  Sample sample_;
  SafetensorsWriter writer_;
  nlohmann::json index_;
};

TEST_F(SafetensorsIndexTest, RefusesWrongIndexes) {
  ExpectRefused("{}", "has no weight_map");
  ExpectRefused("[1]", "not an object");
  ExpectRefused("{\"weight_map\": []}", "weight_map is not an object");
  auto changed = index_;
  changed["weight_map"]["wide"] = 3;
  ExpectRefused(changed.dump(), "not a file name");
  for (const char* name : {"../model-00003-of-00003.safetensors", "/etc/passwd", "..", ""}) {
    changed["weight_map"]["wide"] = name;
    ExpectRefused(changed.dump(), "want the name of a .safetensors file in the same folder");
  }
  changed["weight_map"]["wide"] = std::string("a\0.safetensors", 14);
  ExpectRefused(changed.dump(),
                "the shard of wide: the file \"a\\x00.safetensors\" has a control character");
  changed["weight_map"]["wide"] = "a\n.safetensors";
  ExpectRefused(changed.dump(), "a\\x0A.safetensors");
  changed = index_;
  changed["weight_map"][std::string("wi\0de", 5)] = "model-00003-of-00003.safetensors";
  ExpectRefused(changed.dump(), "the tensor \"wi\\x00de\" has a control character");
  changed = index_;
  changed["weight_map"]["bytes"] = "model-00000-of-00003.safetensors";  // Is not there
  ExpectRefused(changed.dump(), "model-00000-of-00003.safetensors");
}

TEST_F(SafetensorsIndexTest, IndexAndShardsMustAgree) {
  auto changed = index_;
  changed["weight_map"].erase("wide");
  ExpectRefused(changed.dump(), "model-00003-of-00003.safetensors holds 3 tensors");
  changed = index_;
  changed["weight_map"]["extra"] = "model-00001-of-00003.safetensors";
  ExpectRefused(changed.dump(), "the index gives it 2");
  changed = index_;
  changed["weight_map"].erase("wide");
  changed["weight_map"]["other"] = "model-00003-of-00003.safetensors";
  ExpectRefused(changed.dump(), "other is not in");
  // Two names swapped between shards: each shard has the right number.
  changed = index_;
  std::swap(changed["weight_map"]["bytes"], changed["weight_map"]["floats"]);
  ExpectRefused(changed.dump(), "is not in model-0000");
  // One tensor in two shards.
  std::filesystem::copy_file(folder_ / "model-00001-of-00003.safetensors",
                             folder_ / "model-00002-of-00003.safetensors",
                             std::filesystem::copy_options::overwrite_existing);
  ExpectRefused(index_.dump(), "two shards");
}

TEST(StrictJsonTest, RefusesDepthRepeatsAndMass) {
  EXPECT_EQ(ParseStrictJson("{\"a\": {\"b\": [1, 2]}}", "x")["a"]["b"][1], 2);
  EXPECT_NO_THROW(ParseStrictJson("{\"a\": {\"k\": 1}, \"b\": {\"k\": 2}}", "x"));
  EXPECT_THROW(ParseStrictJson("{\"a\": 1, \"a\": 1}", "x"), FormatError);
  EXPECT_THROW(ParseStrictJson("{\"o\": {\"a\": 1, \"a\": 1}}", "x"), FormatError);
  EXPECT_THROW(ParseStrictJson("", "x"), FormatError);
  EXPECT_THROW(ParseStrictJson("{} {}", "x"), FormatError);
  std::string many = "[0";
  for (int i = 0; i < 2'000'001; ++i) many += ",0";
  EXPECT_THROW(ParseStrictJson(many + "]", "x"), FormatError);
}

}  // namespace
}  // namespace tern::formats
